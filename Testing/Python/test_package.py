"""Models behind the firewall: taken from those whom the site trusts, whole, or not at all."""

import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models import package as package_module
from RefSegLib.models import store as store_module
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.package import pack, unpack
from RefSegLib.models.signing import TrustedKeys, new_key, read_public, read_signer
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.models.version import record
from RefSegLib.models_cli import models
from small_disk import no_file_larger_than
from typer.testing import CliRunner

FORKED = multiprocessing.get_context("fork")
SPEC = SegmenterSpec(
    name="heart",
    channels=("MR",),
    labels=(Label(value=1, name="left ventricle", color=(1, 0, 0)),),
    spacing=(1, 1, 1),
    patch=(16, 16, 16),
    network=Network(name="unet"),
)


def no_passphrase() -> str:
    raise AssertionError("no passphrase was needed")


def weights(seed):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=500).astype(np.float32), "half": rng.normal(size=(3, 2)).astype(np.float16)}


@pytest.fixture(scope="module", autouse=True)
def nothing_ships(tmp_path_factory):
    """The models that really ship are none of these tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "resource", lambda name: tmp_path_factory.getbasetemp() / "no resources" / name)
        yield


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The place where models are trained: a store with a version, the key 'ulm' and a signed package."""
    place = tmp_path_factory.mktemp("outside")
    new_key(place / "ulm.key", None)
    store = ModelStore(place / "home")
    store.add(SPEC, weights(7))
    version = store.add(
        SPEC, weights(1), weights(2), parent="heart@1", scores={"dice": 0.1 + 0.2}, reflection={"margin": 1e-17}
    )
    pack(version, read_signer(place / "ulm.key", no_passphrase), place / "heart.refsegpkg")
    return place


@pytest.fixture
def site(tmp_path, outside):
    """A store behind the firewall that trusts ulm."""
    store = ModelStore(tmp_path / "site")
    TrustedKeys(store.home).trust(read_public(outside / "ulm.pub"))
    return store


def content_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def signed_by_ulm(outside, change, parts=None):
    """A package like that of `outside`, with its manifest changed and properly signed, and other files."""
    signer = read_signer(outside / "ulm.key", no_passphrase)
    first, line, _, rest = (outside / "heart.refsegpkg").read_bytes().split(b"\n", 3)
    header = package_module._Header.model_validate_json(line).model_dump()
    change(header["model"])
    signed = first + b"\n" + package_module._Header(**header).line()
    return signed + signer.sign(signed).hex().encode() + b"\n" + (rest if parts is None else parts)


# -- the way of a model


def test_a_model_arrives_as_it_was_sent_and_is_not_active(site, outside):
    sent = ModelStore(outside / "home").load("heart", "2")
    unpacked = unpack(outside / "heart.refsegpkg", site)
    assert (unpacked.signer.name, unpacked.added, unpacked.version.version) == ("ulm", True, "1")
    site.verify("heart", "1")
    found = site.load("heart", "1")
    assert found.manifest == sent.manifest.model_copy(update={"version": "1"})
    for part in sent.manifest.files:
        assert (found.folder / part).read_bytes() == (sent.folder / part).read_bytes()
    with pytest.raises(BadInput, match="active yet"):
        site.active("heart")


def test_a_version_that_is_there_is_recognized_and_others_come_after_it(site, outside, tmp_path):
    site.add(SPEC, weights(5))
    assert unpack(outside / "heart.refsegpkg", site).version.version == "2"
    before = content_of(site.home)
    again = unpack(outside / "heart.refsegpkg", site)
    assert (again.added, again.version.version) == (False, "2")
    assert content_of(site.home) == before
    signer = read_signer(outside / "ulm.key", no_passphrase)
    pack(ModelStore(outside / "home").load("heart", "1"), signer, tmp_path / "other")
    assert unpack(tmp_path / "other", site).version.version == "3"


def test_a_damaged_version_is_brought_in_again(site, outside):
    first = unpack(outside / "heart.refsegpkg", site).version
    (first.folder / "segmenter.safetensors").write_bytes(b"damaged")
    assert unpack(outside / "heart.refsegpkg", site).version.version == "2"
    site.verify("heart", "2")


def test_the_same_version_and_key_give_the_same_package(outside, tmp_path):
    signer = read_signer(outside / "ulm.key", no_passphrase)
    pack(ModelStore(outside / "home").load("heart", "2"), signer, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == (outside / "heart.refsegpkg").read_bytes()


# -- who is trusted


def test_a_stranger_is_named_with_the_digits_of_the_key_and_what_to_do(tmp_path, outside):
    store = ModelStore(tmp_path / "site")
    with pytest.raises(BadInput, match=r"'ulm' signed it.*not trusted here.*refseg models keys trust FILE") as refusal:
        unpack(outside / "heart.refsegpkg", store)
    assert read_public(outside / "ulm.pub").fingerprint in str(refusal.value)
    assert not store.home.exists()


def test_who_takes_a_trusted_name_is_a_stranger_all_the_same(site, outside, tmp_path):
    new_key(tmp_path / "ulm.key", None)
    signer = read_signer(tmp_path / "ulm.key", no_passphrase)
    pack(ModelStore(outside / "home").load("heart", "2"), signer, tmp_path / "false")
    with pytest.raises(BadInput, match="not trusted here"):
        unpack(tmp_path / "false", site)
    # and who names the trusted key without having it
    real, false = (p.read_bytes().split(b"\n", 3) for p in (outside / "heart.refsegpkg", tmp_path / "false"))
    (tmp_path / "forged").write_bytes(b"\n".join((real[0], real[1], false[2], real[3])))
    with pytest.raises(BadInput, match="not what 'ulm' signed"):
        unpack(tmp_path / "forged", site)
    assert site.names() == []


def test_a_signer_has_the_name_that_the_site_gave(tmp_path, outside):
    store = ModelStore(tmp_path / "site")
    TrustedKeys(store.home).trust(read_public(outside / "ulm.pub", "Radiology-Ulm"))
    assert unpack(outside / "heart.refsegpkg", store).signer.name == "Radiology-Ulm"


def test_a_key_that_is_forgotten_signs_nothing_more(site, outside):
    unpack(outside / "heart.refsegpkg", site)
    TrustedKeys(site.home).forget("ulm")
    with pytest.raises(BadInput, match="not trusted here"):
        unpack(outside / "heart.refsegpkg", site)
    site.verify("heart", "1")
    with pytest.raises(BadInput, match=r"No key is trusted as 'ulm'\. Trusted: none"):
        TrustedKeys(site.home).forget("ulm")


def test_a_trusted_key_is_never_replaced_unasked(site, outside, tmp_path):
    new_key(tmp_path / "ulm.key", None)
    keys = TrustedKeys(site.home)
    with pytest.raises(BadInput, match="Another key is trusted as 'ulm'"):
        keys.trust(read_public(tmp_path / "ulm.pub"))
    with pytest.raises(BadInput, match="trusted already, as 'ulm'"):
        keys.trust(read_public(outside / "ulm.pub", "other"))
    keys.trust(read_public(outside / "ulm.pub"))
    assert [key.fingerprint for key in keys.all()] == [read_public(outside / "ulm.pub").fingerprint]


def test_a_damaged_trusted_key_is_named_and_can_be_forgotten(site, outside):
    (site.home / "trusted-keys" / "ulm.pem").write_bytes(b"-----BEGIN")
    with pytest.raises(BadInput, match=r"ulm\.pem"):
        unpack(outside / "heart.refsegpkg", site)
    TrustedKeys(site.home).forget("ulm")
    assert TrustedKeys(site.home).all() == []


# -- damage and hostility


@pytest.fixture(scope="module")
def a_site_for_damage(tmp_path_factory, outside):
    store = ModelStore(tmp_path_factory.mktemp("damage") / "site")
    TrustedKeys(store.home).trust(read_public(outside / "ulm.pub"))
    return store


def refused(content, store):
    """What is said about a package of this content; the store must not have changed."""
    file, before = store.home.parent / "damaged.refsegpkg", content_of(store.home)
    file.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        unpack(file, store)
    assert content_of(store.home) == before
    return str(refusal.value)


def test_no_package_with_a_changed_byte_is_accepted(a_site_for_damage, outside):
    whole = (outside / "heart.refsegpkg").read_bytes()
    start = whole.index(b"\n", whole.index(b"\n", whole.index(b"\n") + 1) + 1) + 1  # where the files begin
    rng = random.Random(0)
    places = {*range(40), *range(start - 140, start + 20), *rng.sample(range(len(whole)), 100), len(whole) - 1}
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        refused(bytes(changed), a_site_for_damage)
    assert len(places) > 200


def test_no_package_cut_short_is_accepted(a_site_for_damage, outside):
    whole = (outside / "heart.refsegpkg").read_bytes()
    rng = random.Random(1)
    for size in {0, 1, 23, 24, len(whole) - 1, *rng.sample(range(len(whole)), 50)}:
        refused(whole[:size], a_site_for_damage)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_damage_of_any_kind_is_accepted(a_site_for_damage, outside, data):
    whole = (outside / "heart.refsegpkg").read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 200)))
    put = data.draw(st.binary(max_size=40))
    if whole[start:end] != put:
        changed = whole[:start] + put + whole[end:]
        if changed != whole:
            refused(changed, a_site_for_damage)


def test_every_kind_of_damage_has_its_sentence(a_site_for_damage, outside):
    whole = (outside / "heart.refsegpkg").read_bytes()
    first, line, signature, rest = whole.split(b"\n", 3)

    def said(*lines):
        return refused(b"\n".join(lines), a_site_for_damage)

    assert "reads format 1. Update" in said(b"RefSeg model package 2", line, signature, rest)
    assert "no signed model package" in said(b"PK\3\4", line, signature, rest)
    assert "manifest of" in said(first, line[:-5], signature, rest)
    assert "not what 'ulm' signed" in said(first, line.replace(b"left", b"good"), signature, rest)
    assert "signature of" in said(first, line, signature[:-2], rest)
    assert "signature of" in said(first, line, signature.upper(), rest)
    assert "ask for it again" in said(first, line, signature, rest[:-1])
    assert f"holds {len(rest) + 1} bytes" in said(first, line, signature, rest + b"x")
    assert "segmenter.safetensors in" in said(first, line, signature, b"x" + rest[1:])


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "C:\\evil", "model.json", "extra.safetensors", "", "segmenter.pkl"]
)
def test_even_a_trusted_signer_cannot_name_other_files(a_site_for_damage, outside, name):
    def change(model):
        model["files"][name] = {"sha256": record(b"x").sha256, "bytes": 1}

    rest = (outside / "heart.refsegpkg").read_bytes().split(b"\n", 3)[3]
    said = refused(signed_by_ulm(outside, change, rest + b"x"), a_site_for_damage)
    assert "not one that this RefSeg understands" in said


def test_even_a_trusted_signer_can_neither_leave_out_nor_swell_nor_garble(a_site_for_damage, outside):
    def without_synthesizer(model):
        del model["files"]["synthesizer.safetensors"]

    def garbled(model):
        model["files"] = {"segmenter.safetensors": record(b"no weights").model_dump()}

    def huge(model):
        model["files"]["segmenter.safetensors"]["bytes"] = 1 << 40

    def misnamed(model):
        model["name"] = "../heart"

    assert "bytes of files" in refused(signed_by_ulm(outside, without_synthesizer), a_site_for_damage)
    assert "holds no weights" in refused(signed_by_ulm(outside, garbled, b"no weights"), a_site_for_damage)
    assert "1048576 MB" in refused(signed_by_ulm(outside, huge), a_site_for_damage)
    assert "not one that" in refused(signed_by_ulm(outside, misnamed), a_site_for_damage)


def test_a_manifest_that_says_something_twice_is_refused(a_site_for_damage, outside):
    signer = read_signer(outside / "ulm.key", no_passphrase)
    first, line, _, rest = (outside / "heart.refsegpkg").read_bytes().split(b"\n", 3)
    signed = first + b"\n" + line.replace(b'"signer"', b'"signer":"ulm","signer"') + b"\n"
    twice = signed + signer.sign(signed).hex().encode() + b"\n" + rest
    assert "not written in the one form" in refused(twice, a_site_for_damage)


def test_what_is_no_file_is_told(site, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadInput, match="There is no file"):
            unpack(path, site)


def test_import_sends_a_signed_package_to_unpack(site, outside):
    with pytest.raises(BadInput, match="refseg models unpack"):
        import_model(outside / "heart.refsegpkg", site)


# -- killed, full


def test_killed_at_any_step_the_store_is_as_it_was_or_has_the_whole_version(outside, tmp_path):
    def unpack_until(step, home):
        steps, real = 0, os.fsync

        def killing(descriptor):
            nonlocal steps
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = killing
        unpack(outside / "heart.refsegpkg", ModelStore(home))

    killed, found = 0, []
    for step in range(1, 40):
        store = ModelStore(tmp_path / f"site{step}")
        TrustedKeys(store.home).trust(read_public(outside / "ulm.pub"))
        process = FORKED.Process(target=unpack_until, args=(step, store.home))
        process.start()
        process.join()
        found.append(store.versions("heart") if store.names() else [])
        for version in found[-1]:
            store.verify("heart", version)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        assert unpack(outside / "heart.refsegpkg", store).version.version == "1"
        assert not [p for p in store.root.rglob(".tmp*") if p.is_dir()]
    else:
        pytest.fail("unpacking never came to its end")
    assert killed >= 8, "four files and their folders"
    assert found[0] == [] and found[-1] == ["1"]


def test_on_a_full_disk_nothing_changes(site, outside, tmp_path):
    before = content_of(site.home)
    with no_file_larger_than(1), pytest.raises(RefSegError, match="nothing was changed"):
        unpack(outside / "heart.refsegpkg", site)
    assert content_of(site.home).keys() - before.keys() <= {Path("models/heart/.lock")}
    signer = read_signer(outside / "ulm.key", no_passphrase)
    version = ModelStore(outside / "home").load("heart", "2")
    with no_file_larger_than(1), pytest.raises(RefSegError, match="could not be written"):
        pack(version, signer, tmp_path / "out" / "heart.refsegpkg")
    assert list((tmp_path / "out").iterdir()) == []


# -- keys


def test_a_private_key_is_its_owner_s_alone(tmp_path):
    made = new_key(tmp_path / "anna.key", "correct horse")
    assert stat.S_IMODE((tmp_path / "anna.key").stat().st_mode) == 0o600
    assert read_signer(tmp_path / "anna.key", lambda: "correct horse").public.fingerprint == made.fingerprint
    with pytest.raises(BadInput, match="passphrase is wrong"):
        read_signer(tmp_path / "anna.key", lambda: "wrong")
    with pytest.raises(BadInput, match="passphrase is wrong"):
        read_signer(tmp_path / "anna.key", lambda: "")
    (tmp_path / "anna.key").chmod(0o640)
    with pytest.raises(BadInput, match="chmod 600"):
        read_signer(tmp_path / "anna.key", no_passphrase)


def test_a_key_is_never_overwritten(tmp_path):
    new_key(tmp_path / "anna.key", None)
    before = content_of(tmp_path)
    for again in ("anna.key", "anna.pem", "anna.pub"):
        with pytest.raises(BadInput):
            new_key(tmp_path / again, None)
    assert content_of(tmp_path) == before


def test_what_is_no_key_of_this_kind_is_told(tmp_path, outside):
    other = generate_private_key(SECP256R1())
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "ec.key").touch(mode=0o600)
    (tmp_path / "ec.key").write_bytes(other.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    public = other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(public)
    (tmp_path / "text.pub").write_text("hello")
    (tmp_path / "half.key").touch(mode=0o600)
    (tmp_path / "half.key").write_bytes((outside / "ulm.key").read_bytes()[:60])
    for read, file, said in (
        (read_public, tmp_path / "ec.pub", "another kind"),
        (read_public, tmp_path / "text.pub", "no public key"),
        (read_public, outside / "ulm.key", "private key, which only its owner"),
        (read_public, tmp_path / "absent.pub", "There is no file"),
        (lambda f: read_signer(f, no_passphrase), tmp_path / "ec.key", "another kind"),
        (lambda f: read_signer(f, no_passphrase), tmp_path / "half.key", "damaged"),
        (lambda f: read_signer(f, no_passphrase), outside / "ulm.pub", "no private key"),
    ):
        with pytest.raises(BadInput, match=said):
            read(file)


def test_digits_of_a_key_can_be_read_out(outside):
    """Computed from the standard's first test vector (RFC 8032, 7.1) with sha256sum and bc."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from RefSegLib.models.signing import PublicKey

    vector = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = PublicKey("rfc", Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector)))
    assert key.fingerprint == "43784 88985 22043 89401 86851 50966 57447 05613 11816 57942 02430 42745"


# -- commands


def test_a_model_is_moved_by_commands(outside, tmp_path):
    def said(*words, answers="", code=0):
        result = CliRunner().invoke(models, [*map(str, words)], input=answers)
        assert result.exit_code == code, result.output
        return " ".join(result.output.split()) + str(result.exception or "")

    key, package = tmp_path / "bonn.key", tmp_path / "heart.refsegpkg"
    there, here = ("--store", outside / "home"), ("--store", tmp_path / "site")
    digits = read_public_after(said("keys", "new", key, answers="horse\nhorse\n"), tmp_path / "bonn.pub")
    packing = ("pack", "heart", "--version", "2", "--key", key, "--out", package, *there)
    assert digits in said(*packing, answers="horse\n")
    assert "passphrase is wrong" in said(*packing, answers="house\n", code=1)
    assert "keys trust" in said("unpack", package, *here, code=1)
    trusting = ("keys", "trust", tmp_path / "bonn.pub", *here)
    assert "not trusted" in said(*trusting, answers="n\n", code=1)
    assert said("keys", "list", *here) == ""
    assert digits in said(*trusting, answers="y\n")
    assert f"bonn: {digits}" in said("keys", "list", *here)
    assert "refseg models activate heart@1" in said("unpack", package, *here)
    assert "heart" in said("list", *here), "a model without an active version is listed"
    assert "nothing was added. heart@1 is active" in said("unpack", package, "--activate", *here)
    assert ModelStore(tmp_path / "site").active("heart") == "1"
    assert "no longer" in said("keys", "forget", "bonn", *here)
    assert "keys trust" in said("unpack", package, *here, code=1)


def read_public_after(output, file):
    digits = read_public(file).fingerprint
    assert digits in output
    return digits


def test_without_cryptography_the_store_works_and_packing_says_what_is_missing():
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import RefSegLib.models.store, RefSegLib.models_cli\n"
        "from RefSegLib.errors import RefSegError\n"
        "try: import RefSegLib.models.package\n"
        "except RefSegError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install cryptography" in run.stdout
