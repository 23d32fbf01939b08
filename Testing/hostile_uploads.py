"""Uploads made wrong in every way we could think of: what is said about a volume, and what comes of it.

Every attack is a function of a target and a random generator, and asks the real server over its real socket.
"""

import gzip
import json
import random
import zlib

import numpy as np
from hostile_target import NAME
from InteractiveLearningLib.service import wire
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

ODD = [None, True, -1, 0, 2**31, 2**63, 2**70, -(2**70), 1e308, 5e-324, "", "\ud800", "\0", [], {}, [[]], NAME * 99]
ODD += [float("nan"), float("inf"), f"../../{NAME}", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n", "int8", [1] * 999]
SHAPES = [[0, 8, 8, 8], [1, 0, 8, 8], [1, -8, 8, 8], [2**31 - 1] * 4, [1, 2**40, 1, 1], [17, 8, 8, 8], [1, 8, 8, 9]]
SHAPES += [[8, 8, 8], [1, 8, 8, 8, 1], [1.5, 8, 8, 8], ["1", "8", "8", "8"], [1, 1024, 1024, 1025], [1, 1, 1, 2**30]]
DTYPES = ["object", "float64", ">f4", "O8", "V8", "int64", "bool", "|S8", "float16", "uint32", "datetime64", "f4,f4", 4]
GRIDS = [
    {"shape": [8, 8, 9]},
    {"spacing": [0, 1, 1]},
    {"spacing": [-1, 1, 1]},
    {"spacing": [1e-300, 1, 1]},
    {"spacing": [1e300, 1, 1]},
    {"spacing": [float("nan"), 1, 1]},
    {"direction": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]},
    {"direction": [[0, 0, 1], [0, 0, 1], [1, 0, 0]]},
    {"direction": [[0, 0, 1e200], [0, 1, 0], [1, 0, 0]]},
    {"direction": [[0, 0, float("nan")], [0, 1, 0], [1, 0, 0]]},
    {"direction": [[0, 0, 1], [0, 1, 0]]},
    {"origin": [float("inf"), 0, 0]},
    {"origin": [1e300, 0, 0]},
    {"origin": ["a", 0, 0]},
    {"planar": "maybe"},
]


def a_volume(rng: random.Random, dtype=np.int16) -> Volume:
    """A small one that nobody has seen before."""
    values = np.frombuffer(rng.randbytes(512 * np.dtype(dtype).itemsize), dtype).reshape(8, 8, 8)
    return Volume(values.copy(), Grid((8, 8, 8)))


def about(volume: Volume, packed: int) -> dict:
    """A true announcement."""
    return wire.volume_head(volume) | {"id": wire.volume_id(volume), "packed": packed}


# -- what is said about a volume


def wrong_text(target, rng):
    text = bytearray(json.dumps(about(a_volume(rng), 1000)).encode())
    kind = rng.randrange(6)
    if kind == 0:
        del text[rng.randrange(len(text)) :]
    elif kind == 1:
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        at = rng.randrange(len(text))
        text[at:at] = rng.randbytes(rng.randint(1, 9))
    elif kind == 3:
        text = bytearray(rng.choice([b"[", b'{"a":', b'[{"shape":']) * rng.choice([10, 1000, 100_000]))
    elif kind == 4:
        text = bytearray(rng.choice([b"\xff\xfe", b"\xef\xbb\xbf", b"\0\0\0"])) + text
    else:
        text = bytearray(b'{"id":' + b"9" * rng.choice([20, 400, 5000]) + b"}")
    target.ask("POST", "/v1/volumes", bytes(text))


def wrong_field(target, rng):
    said = about(a_volume(rng), 1000)
    place = rng.choice([said, said, said["grid"]])
    place[rng.choice(list(place))] = rng.choice(ODD)
    target.refused("A wrong field", target.announce(said))


def wrong_shape(target, rng):
    said = about(a_volume(rng), rng.choice([0, 1, 1000, 2**31 - 1]))
    said["shape"] = rng.choice(SHAPES)
    if rng.random() < 0.5:
        said["grid"]["shape"] = said["shape"][1:]
    target.refused("A wrong shape", target.announce(said))


def wrong_type(target, rng):
    target.refused("A wrong type", target.announce(about(a_volume(rng), 1000) | {"dtype": rng.choice(DTYPES)}))


def wrong_grid(target, rng):
    said = about(a_volume(rng), 1000)
    said["grid"] |= rng.choice(GRIDS)
    status, _ = target.announce(said)
    if 200 <= status < 300:
        target.faults.append(f"An impossible grid was taken: {said['grid']}")


def wrong_keys(target, rng):
    said = json.dumps(about(a_volume(rng), 1000))
    key = rng.choice([f"../{NAME}", "__proto__", "\ud800", "id ", "user", "path", "", "packed\0"])
    if rng.random() < 0.5:  # twice the same key: the last one counts, whoever reads it
        said = said[:-1] + ', "shape": [1, 2, 2, 2], "id": "{}"}}'.format(
            rng.choice(["0" * 64, f"../{NAME}", "a" * 63])
        )
    else:
        said = said[:-1] + f", {json.dumps(key)}: {json.dumps(rng.choice(ODD))}}}"
    target.ask("POST", "/v1/volumes", said.encode())


def many_wrong(target, rng):
    """Each of many wrong values would have to be explained."""
    count = rng.choice([100, 5000, 60_000])
    body = rng.choice([{f"k{n}": n for n in range(count)}, {"shape": [{}] * count}, [[]] * count])
    target.ask("POST", "/v1/volumes", body)


# -- what comes


def _sent(target, rng, volume, content, packed=None, **changes):
    """Announce a volume truly but for `changes`, send `content` in one to three chunks; the last answer."""
    said = about(volume, len(content) if packed is None else packed) | changes
    answer = target.announce(said)
    ends = [*sorted(rng.randrange(len(content) + 1) for _ in range(rng.randrange(3))), len(content)]
    start = 0
    for end in ends:
        if answer[0] != 200:
            break
        answer = target.put(said["id"], start, content[start:end])
        start = end
    return answer


def truncated(target, rng):
    volume = a_volume(rng)
    content = wire.pack_volume(volume)
    cut = content[: rng.randrange(len(content))]
    packed = rng.choice([len(content), max(len(cut), 1)])
    target.refused("A truncated volume", _sent(target, rng, volume, cut, packed))


def flipped(target, rng):
    volume = a_volume(rng)
    content = bytearray(wire.pack_volume(volume))
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    try:
        unpacker = zlib.decompressobj()
        if unpacker.decompress(bytes(content)) == volume.array.tobytes() and unpacker.eof and not unpacker.unused_data:
            return  # flipped to and fro, or where it does not count
    except zlib.error:
        pass
    target.refused("A volume with other bits", _sent(target, rng, volume, bytes(content)))


BOMBS = {size: zlib.compress(bytes(size), 9) for size in (2**20, 2**24)}


def bomb(target, rng):
    """Unpacks to much more than it says, or to exactly as much, and that is large."""
    size = rng.choice(list(BOMBS))
    volume = a_volume(rng)
    shape = rng.choice([[1, 8, 8, 8], [1, 64, 64, 64], [1, 512, 512, 1024], [1, 1024, 1024, 1024]])
    said = {"shape": shape, "grid": Grid(tuple(shape[1:])).to_dict(), "dtype": "uint8"}
    target.refused("A bomb", _sent(target, rng, volume, BOMBS[size], **said))


def wrong_hash(target, rng):
    volume, other = a_volume(rng), a_volume(rng)
    target.refused("Another volume", _sent(target, rng, volume, wire.pack_volume(other)))


def wrong_head(target, rng):
    """The bytes are right, the head is another: other axes, type or place."""
    volume = a_volume(rng)
    change = rng.choice(
        [
            {"dtype": "uint16"},
            {"shape": [2, 4, 8, 8], "grid": Grid((4, 8, 8)).to_dict()},
            {"grid": Grid((8, 8, 8), (1, 1, 2)).to_dict()},
            {"grid": Grid((8, 8, 8), origin=(1e-9, 0, 0)).to_dict()},
        ]
    )
    target.refused("A volume under another head", _sent(target, rng, volume, wire.pack_volume(volume), **change))


def wrong_size(target, rng):
    volume = a_volume(rng)
    content = wire.pack_volume(volume)
    packed = rng.choice([1, len(content) - 1, len(content) + 1, 0, -1, 2**31 - 1, 2**63, len(content) * 2])
    target.refused("A wrong size", _sent(target, rng, volume, content, packed))


def wrong_offset(target, rng):
    volume = a_volume(rng)
    content = wire.pack_volume(volume)
    said = about(volume, len(content))
    target.announce(said)
    half = len(content) // 2
    target.put(said["id"], 0, content[:half])
    offset = rng.choice([0, 1, half - 1, half + 1, -1, 2**31, 2**40, 2**63, "x", "", "nan", "1e3", "0x10", half + 0.5])
    answer = target.put(said["id"], offset, content[half:])
    target.refused("A chunk from elsewhere", answer)
    if answer[0] == 409 and answer[1].get("received") != half:
        target.faults.append(f"{half} bytes came, and the server says {answer[1]}")
    if rng.random() < 0.3:  # nothing is lost by it
        target.ask("GET", f"/v1/volumes/{said['id']}")
        if target.put(said["id"], half, content[half:])[1].get("complete") is not True and answer[0] != 0:
            target.faults.append("An upload was lost by a chunk from elsewhere")


def trailing(target, rng):
    volume = a_volume(rng)
    content = wire.pack_volume(volume) + rng.choice([b"\0", b"PK\x03\x04", rng.randbytes(100)])
    target.refused("A volume with more behind it", _sent(target, rng, volume, content))


def other_stream(target, rng):
    volume = a_volume(rng)
    plain = volume.array.tobytes()
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    content = rng.choice(
        [
            plain,
            gzip.compress(plain),
            compressor.compress(plain) + compressor.flush(),
            b"\x80\x04\x95" + plain,
            rng.randbytes(600),
            zlib.compress(zlib.compress(plain)),
            b"x",
        ]
    )
    target.refused("Another kind of stream", _sent(target, rng, volume, content))


def no_numbers(target, rng):
    """The upload is as it says; but voxels are no numbers, so nobody can segment or annotate it."""
    volume = a_volume(rng, np.float32)
    values = rng.choice([np.nan, np.inf, -np.inf])
    volume.array[0, rng.randrange(8), rng.randrange(8), :] = values
    _status, said = _sent(target, rng, volume, wire.pack_volume(volume))
    if said.get("complete") and rng.random() < 0.3:
        identifier = wire.volume_id(volume)
        label = {"value": 1, "name": "a", "color": [1, 0, 0]}
        target.refused("NaN", target.ask("POST", "/v1/sessions", {"volume": identifier, "labels": [label]}))
        target.refused("NaN", target.ask("POST", "/v1/jobs", {"volume": identifier, "model": "balls"}))


def encoded(target, rng):
    """A body under an encoding that nobody here undoes, or of another type."""
    volume = a_volume(rng)
    content = wire.pack_volume(volume)
    said = about(volume, len(content))
    encoding = rng.choice(["gzip", "deflate", "br", "zstd", "identity, gzip", "x" * 200])
    if rng.random() < 0.5:
        body = gzip.compress(json.dumps(said).encode())
        target.refused("gzip", target.ask("POST", "/v1/volumes", body, {"Content-Encoding": encoding}))
    else:
        target.announce(said)
        target.refused("gzip", target.put(said["id"], 0, gzip.compress(content), {"Content-Encoding": encoding}))


def too_large(target, rng):
    volume = a_volume(rng)
    identifier = wire.volume_id(volume)
    size = rng.choice([wire.CHUNK + 1, wire.CHUNK + 2**16])
    target.refused("Too large a chunk", target.put(identifier, 0, bytes(size)))
