"""Damaged tar files: what their headers claim is not believed, and what came before is used."""

import tarfile

import pytest
from fuzz_sound import sparse
from raw_media import image, put, put_csv, put_tar

from data.datasets import DATASETS, Missing, RawFolder, own
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import tars

WHOLE = image(0)


def header(kind: bytes, size: int) -> bytes:
    """Of a member, with a right checksum; a negative size as GNU's tar would write it."""
    made = bytearray(tarfile.TarInfo("b.jpg").tobuf(tarfile.GNU_FORMAT))
    made[156:157] = kind
    if size < 0 or size >= 8**11:
        made[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
    else:
        made[124:136] = b"%011o\0" % size
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def damaged(folder, kind: bytes, size: int, copies: int = 1):
    """A tar of an image with its caption, and such headers behind; gives its path."""
    put_tar(folder / "0.tar", {"a.txt": "one", "a.jpg": WHOLE})
    before = (folder / "0.tar").read_bytes()
    with tarfile.open(folder / "0.tar") as tar:
        end = tar.getmembers()[-1].offset_data + len(WHOLE)
    put(folder / "0.tar", before[:end + -end % 512] + header(kind, size) * copies + b"\0" * 1024)
    return folder / "0.tar", end + -end % 512


@pytest.mark.parametrize("kind, size, copies", [
    (b"0", -1, 1), (b"0", -512, 1), (b"0", -10**6, 1), (b"0", 2**80, 1), (b"x", 2**63, 1),
    (b"x", 2**33, 1), (b"g", 2**40, 1), (b"L", 2**33, 1), (b"L", -1, 1), (b"x", -1536, 1),
    (b"x", 0, 3000)])
def test_what_a_header_claims_ends_no_more_than_its_tar(kind, size, copies, tmp_path):
    path, _ = damaged(tmp_path / "raw", kind, size, copies)
    found = []
    with pytest.raises(tarfile.TarError, match="header"):
        for member in tars.members(path):
            found.append(member.name)
    assert found[:2] == ["a.txt", "a.jpg"]
    raw = RawFolder(tmp_path / "raw")
    first, *_, last = DATASETS["webdataset"].read(raw)["train"]
    assert first.fields["texts"] == ["one"] and first.media.size == len(WHOLE)
    assert isinstance(last.media, Missing) and "the rest of 0.tar" in last.media.expected
    put_csv(tmp_path / "t.csv", [["path", "caption"], ["0.tar/a.jpg", "x"], ["0.tar/c.jpg", "y"]])
    told = own.dataset(own.Options((str(tmp_path / "t.csv"),))).read(raw)["train"]
    assert [isinstance(entry.media, Missing) for entry in told] == [False, True]


def test_a_size_that_leads_back_to_an_earlier_header_is_no_ring(tmp_path):
    path, at = damaged(tmp_path, b"0", 0)
    put(path, path.read_bytes()[:at] + header(b"0", -(at + 512 - 1024)) + b"\0" * 1024)
    with pytest.raises(tarfile.TarError, match="a size below zero"):
        assert len(list(tars.members(path))) < 3


def as_pax(facts: dict[str, str], data: bytes, name: str = "s.jpg") -> bytes:
    """A member with such facts before it."""
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(data), facts
    return info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % 512)


def plain(name: str, data: bytes) -> bytes:
    return as_pax({}, data, name)


SIZE = str(len(WHOLE))
HOLES = [(4096 * n, 512) for n in range(30)]
PART = b"x" * 512 * len(HOLES)


def with_map(extents, data: bytes, size: int) -> bytes:
    """As `tar -S --format=pax`: the extents stand before what they hold."""
    numbers = "".join(f"{number}\n" for number in (len(extents), *sum(extents, ())))
    told = numbers.encode().ljust(-(-len(numbers) // 512) * 512, b"\0")
    return as_pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.jpg",
                   "GNU.sparse.realsize": str(size)}, told + data)


@pytest.mark.parametrize("made, whole", [
    (sparse([(0, len(WHOLE)), (len(WHOLE), 0)], WHOLE, len(WHOLE)), True),
    (with_map([(0, len(WHOLE)), (len(WHOLE), 0)], WHOLE, len(WHOLE)), True),
    (as_pax({"GNU.sparse.map": f"0,{SIZE}", "GNU.sparse.size": SIZE}, WHOLE), True),
    (sparse(HOLES, PART, 4096 * 30), False),
    (with_map(HOLES, PART, 4096 * 30), False),
    (as_pax({"GNU.sparse.map": "8,4", "GNU.sparse.size": "12"}, b"abcd"), False)])
def test_sparse_members_without_holes_are_read_and_others_named(made, whole, tmp_path):
    put(tmp_path / "raw/0.tar", made + plain("s.txt", b"one") + plain("t.jpg", WHOLE)
        + plain("t.cls", b"3") + b"\0" * 1024)
    first, second = DATASETS["webdataset"].read(RawFolder(tmp_path / "raw"))["train"]
    assert first.fields["texts"] == ["one"] and second.fields["label"] == "3"
    put_csv(tmp_path / "t.csv", [["path", "caption"], ["0.tar/s.jpg", "x"], ["s.jpg", "y"]])
    told = own.dataset(own.Options((str(tmp_path / "t.csv"),))).read(RawFolder(tmp_path / "raw"))
    for entry in (first, *told["train"]):
        if whole:
            data = (tmp_path / "raw" / entry.media.path).read_bytes()
            assert data[entry.media.offset:][:entry.media.size] == WHOLE
        else:
            assert "is a sparse file in a tar: pack it without tar -S" in entry.media.expected
    assert whole or first.media.odd


def test_a_caption_that_is_sparse_costs_its_sample(tmp_path):
    put(tmp_path / "0.tar", plain("s.jpg", WHOLE) + sparse([(9, 3)], b"two", 12, "s.txt")
        + b"\0" * 1024)
    (entry,) = DATASETS["webdataset"].read(RawFolder(tmp_path))["train"]
    assert entry.media.odd and "what is beside s is a sparse file" in entry.media.expected


@pytest.mark.parametrize("cut", [512, 768, 1024, 1280])
def test_a_sparse_member_that_is_cut_is_the_end_of_its_tar(cut, tmp_path):
    before = plain("a.jpg", WHOLE)
    put(tmp_path / "0.tar", before + sparse(HOLES, PART, 4096 * 30)[:cut])
    first, *_, last = DATASETS["webdataset"].read(RawFolder(tmp_path))["train"]
    assert first.media.size == len(WHOLE) and "the rest of 0.tar" in last.media.expected


def test_what_is_cut_is_named_and_what_lies_behind_it_is_not_there(tmp_path):
    whole = plain("a.jpg", WHOLE) + plain("a.txt", b"one")
    put(tmp_path / "raw/0.tar", (whole + plain("b.jpg", WHOLE))[:len(whole) + 1000])
    first, cut, rest = DATASETS["webdataset"].read(RawFolder(tmp_path / "raw"))["train"]
    assert first.media.size == len(WHOLE) and cut.id == "b"
    assert "ends in the middle of b.jpg" in rest.media.expected
    put_csv(tmp_path / "t.csv", [["path", "caption"], ["0.tar/b.jpg", "x"], ["0.tar/c.jpg", "y"]])
    table = own.dataset(own.Options((str(tmp_path / "t.csv"),))).read(RawFolder(tmp_path / "raw"))
    here, behind = (entry.media for entry in table["train"])
    for media in (cut.media, here):
        with pytest.raises(MediaError, match=f"ends {len(WHOLE) - 488} bytes too early"):
            own.read_media(tmp_path / "raw", media)
    assert "no such file in what can be read: it ends in the middle of b.jpg" in behind.expected


def test_facts_before_a_member_are_read_up_to_the_limit(tmp_path):
    long = as_pax({"SCHILY.xattr.user.a": "v" * 1_500_000}, WHOLE, "b.jpg")
    put(tmp_path / "0.tar", long + plain("c.jpg", WHOLE) + b"\0" * 1024)
    assert [member.name for member in tars.members(tmp_path / "0.tar")] == ["b.jpg", "c.jpg"]
    put(tmp_path / "0.tar", plain("a.jpg", WHOLE) + long[:10**6])
    with pytest.raises(tarfile.TarError, match="in the middle of a header of 1,50"):
        list(tars.members(tmp_path / "0.tar"))
    put(tmp_path / "0.tar", plain("a.jpg", WHOLE) + header(b"x", 17 * 2**20) + b"\0" * 18 * 2**20)
    with pytest.raises(tarfile.TarError, match="a header of 17,.* longer than the limit of 16 MiB"):
        list(tars.members(tmp_path / "0.tar"))


@pytest.mark.parametrize("facts", [
    b"1" * 2**20, (b"1" * 9999 + b"x") * 100, b"2 " * 2**19])
def test_facts_that_take_the_square_of_their_length_are_refused(facts, tmp_path):
    facts = facts.ljust(2**20, b"\0")
    put(tmp_path / "0.tar", plain("a.jpg", WHOLE) + header(b"x", len(facts)) + facts
        + plain("b.jpg", WHOLE) + b"\0" * 1024)
    with pytest.raises(tarfile.TarError, match="too many digits|shorter than its name"):
        list(tars.members(tmp_path / "0.tar"))


def test_facts_of_all_members_are_few(tmp_path):
    facts = b"".join(b"15 %07d=abc\n" % number for number in range(1001))
    put(tmp_path / "0.tar", plain("a.jpg", WHOLE) + header(b"g", len(facts)) + facts
        + b"\0" * (-len(facts) % 512) + plain("b.jpg", WHOLE) + b"\0" * 1024)
    with pytest.raises(tarfile.TarError, match="over 1,000 facts"):
        list(tars.members(tmp_path / "0.tar"))
