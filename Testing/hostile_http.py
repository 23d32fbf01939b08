"""Uploads sent to the wrong places and in the wrong ways: paths, headers, lengths, and what is no HTTP at all."""

import json

from hostile_target import NAME, SHORT
from hostile_uploads import a_volume, about

TRAVERSALS = [
    f"../{NAME}",
    f"..%2f..%2f{NAME}",
    f"%2e%2e/%2e%2e/{NAME}",
    f"..%5c..%5c{NAME}",
    f"....//....//{NAME}",
    f"%252e%252e%252f{NAME}",
    f"..%c0%af{NAME}",
    f"%00{NAME}",
    f"{'0' * 64}%2f..%2f..%2f{NAME}",
    f"{'0' * 64}.part%00{NAME}",
    f"/etc/passwd%00{NAME}",
    f"C:%5c{NAME}",
    f"file:%2f%2f{NAME}",
    f"%ff%fe{NAME}",
    f"{'a' * 4000}{NAME}",
    "..",
    ".",
    "",
    "%0d%0aX-Evil:%20yes",
]


# -- where it is sent


def elsewhere(target, rng):
    path = rng.choice(
        ["/v1/volumes/{}", "/v1/volumes/{}?offset=0", "/v1/jobs/{}", "/v1/sessions/{}", "/v1/sessions/{}/log"]
    )
    if rng.random() < 0.3:
        path = rng.choice(["/v1/models/{}/learning", "/v1/clients/{}", "/{}", "/v1/{}", "/v1/models/{}/rollback"])
    named = path.format(rng.choice(TRAVERSALS)).encode()
    method = rng.choice([b"GET", b"PUT", b"POST", b"DELETE"])
    found = target.raw(
        b"%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\n\r\n{}"
        % (method, named, target.token.encode())
    )
    lists = named.rstrip(b"/.") in (b"/v1/jobs", b"/v1/sessions", b"/v1/volumes", b"/v1")
    if any(200 <= status < 300 for status in found) and not lists:
        target.faults.append(f"{method} {named[:100]} was answered {found}")


def stranger(target, rng):
    """Names in fields that lead elsewhere."""
    name = rng.choice(
        [f"../../{NAME}", f"/etc/{NAME}", f"balls/../{NAME}", f"balls@../{NAME}", f"balls\n{NAME}", "balls@0"]
    )
    volume = "0" * 64
    bodies = {
        "/v1/jobs": {"volume": rng.choice([volume, name]), "model": name},
        "/v1/sessions": {"volume": name, "labels": [{"value": 1, "name": name, "color": [0, 0, 0]}]},
        "/v1/models/balls/activate": {"version": name},
        "/v1/models/balls/reviews": {"version": "1", "case": name, "accepted": False},
        f"/v1/sessions/{'0' * 32}/accept": {"model": name, "patient": "x", "site": name},
    }
    path = rng.choice(list(bodies))
    target.refused("A name that leads elsewhere", target.ask("POST", path, bodies[path]))


# -- how it is sent


def _head(target, volume, length: bytes | None, extra: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = b"POST /v1/volumes HTTP/%s\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer %s\r\n" % (
        version,
        target.token.encode(),
    )
    if b"Content-Type" not in extra:
        lines += b"Content-Type: application/json\r\n"
    lines += extra
    return lines + (b"" if length is None else b"Content-Length: %s\r\n" % length) + b"\r\n"


def chunked(target, rng):
    volume = a_volume(rng)
    body = json.dumps(about(volume, 1000)).encode()
    head = _head(target, volume, None, b"Transfer-Encoding: chunked\r\n")
    good = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    wrong = [
        good,
        b"%x\r\n%s" % (len(body) + 9, body),
        b"-1\r\n" + body,
        b"FFFFFFFFFFFFFFFF\r\n" + body,
        b"zz\r\n" + body,
        b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(body), b"e" * rng.choice([10, 70_000]), body),
        b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
        b"%x\r\n%s\r\n0\r\nX-Evil: yes\r\n%s\r\n" % (len(body), body, b"a: b\r\n" * rng.choice([1, 20_000])),
        b"%x\n%s\n0\n\n" % (len(body), body),
    ]
    target.raw(head + rng.choice(wrong), patience=SHORT)


def smuggled(target, rng):
    """Two lengths; and behind the body something that looks like another request."""
    volume = a_volume(rng)
    body = json.dumps(about(volume, 1000)).encode()
    inner = b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n"
    extra = rng.choice(
        [
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Content-Length: 3\r\n",
            b"Content-Length: 3, 5\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
        ]
    )
    found = target.raw(_head(target, volume, b"%d" % len(body), extra) + body + inner, patience=SHORT)
    if len(found) > 1 and found[1] < 300:
        target.faults.append(f"A request hidden behind a body was answered {found}")


def odd_headers(target, rng):
    volume = a_volume(rng)
    body = json.dumps(about(volume, 1000)).encode()
    extra = rng.choice(
        [
            b"X-A: " + b"a" * 40_000 + b"\r\n",
            b"".join(b"X-%d: b\r\n" % n for n in range(3000)),
            b"X-A: a\r\n b\r\n",
            b"X-A: a\0b\r\n",
            b"X-A: \xff\xfe\xf0\x9f\x92\xa9\r\n",
            b"Bad Header\r\n",
            b": nameless\r\n",
            b"Host: b\r\n",
            b"Host: " + b"x" * 9000 + b"\r\n",
            b"Expect: 100-continue\r\n",
            b"Expect: nonsense\r\n",
            b"Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n",
            b"X-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /v1/audit\r\nX-HTTP-Method-Override: DELETE\r\n",
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            b"Range: bytes=0-18446744073709551615\r\n",
            b"Content-Type: application/x-www-form-urlencoded\r\n",
            b"Content-Type: multipart/form-data; boundary=" + b"x" * 300 + b"\r\n",
            b"Content-Type: application/json; charset=utf-7\r\n",
            b"Accept-Encoding: gzip;q=1e400\r\nCookie: " + b"a=b;" * 999 + b"\r\n",
        ]
    )
    target.raw(_head(target, volume, b"%d" % len(body), extra) + body, patience=SHORT)


def odd_tokens(target, rng):
    """No token, or something that only looks like one; from an address of its own, as they are counted by address."""
    shown = rng.choice([b"Bearer", b"Bearer ", b"Basic YTpi", b"bearer\t", b"Token %s" % target.token.encode(), b""])
    lines = b"GET /v1/audit HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if rng.random() < 0.8:
        lines += b"Authorization: " + shown + b"\r\n"
    if rng.random() < 0.2:  # which of two counts is nobody's guess
        lines += b"Authorization: Basic YTpi\r\nAuthorization: Bearer %s\r\n" % target.token.encode()
    found = target.raw(lines + b"\r\n")
    if any(status < 400 for status in found):
        target.faults.append(f"{lines!r} was answered {found}")


def odd_methods(target, rng):
    method = rng.choice(
        [b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"PROPFIND", b"PUT", b"DELETE", b"A" * 99]
    )
    path = rng.choice([b"/v1/volumes", b"*", b"http://evil.example/v1/volumes", b"//v1/volumes", b"/v1/volumes/", b"/"])
    version = rng.choice([b"1.1", b"1.0", b"0.9", b"2.0", b"1.9", b"9" * 50])
    found = target.raw(
        b"%s %s HTTP/%s\r\nHost: a\r\nX-Evil-Sent: yes\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n"
        % (method, path, version, target.token.encode()),
        patience=SHORT,
    )
    if any(200 <= status < 300 for status in found):
        target.faults.append(f"{method} {path} {version} was answered {found}")


def no_http(target, rng):
    target.raw(
        rng.choice(
            [
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(50),
                rng.randbytes(rng.choice([1, 300, 70_000])),
                b"\r\n" * rng.choice([1, 50_000]),
                b"GET / HTTP/1.1" + b"\r" * 1000,
                b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
                b"GET /hello\r\n\r\n",
            ]
        ),
        patience=SHORT,
    )


def pipelined(target, rng):
    volume = a_volume(rng)
    body = json.dumps(about(volume, 1000)).encode()
    one = _head(target, volume, b"%d" % len(body)).replace(b"Connection: close\r\n", b"") + body
    count = rng.randint(2, 12)
    found = target.raw(one * count + _head(target, volume, b"%d" % len(body)) + body)
    if found != [200] * (count + 1):
        target.faults.append(f"{count + 1} requests at once were answered {found}")


def broken_off(target, rng):
    """Says how long the body is, and goes away before its end, at once or slowly."""
    volume = a_volume(rng)
    body = json.dumps(about(volume, 1000)).encode()
    cut = body[: rng.randrange(len(body))]
    head = _head(target, volume, rng.choice([b"%d" % len(body), b"33554432", b"99999999999999999999", b"-5", b"0x10"]))
    if rng.random() < 0.1:
        target.raw(head, *(cut[n : n + 40] for n in range(0, len(cut), 40)), pause=0.02, patience=SHORT)
    else:
        target.raw(head + cut, patience=SHORT)
