"""What may be opened, and how much of it: by probing, training and predicting alike."""

import errno
import http.server
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import encode, moving, two_streams, with_cover

from data.media import probe
from mplug2_jax.contracts.errors import DataError, MediaError
from mplug2_jax.contracts.machine import MachineError, refusal
from mplug2_jax.preprocess import files, guard, opening, video
from mplug2_jax.preprocess.files import IMAGES, VIDEOS, find_media, load_clip, media_kind
from mplug2_jax.preprocess.opening import read_file
from mplug2_jax.preprocess.video import decode_video


@pytest.fixture(scope="module")
def clip() -> bytes:
    return encode("libx264", "mp4", moving(10), g="5")


class Canary(http.server.BaseHTTPRequestHandler):
    """Notes who asks for anything."""

    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def canary():
    server = http.server.HTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


SCRIPTS = {
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
           "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "ffconcat": "ffconcat version 1.0\nfile '{file}'\n",
    "ffconcat http": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n"
           "#EXT-X-ENDLIST\n",
    "hls file": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n",
    "hls map": '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI="{file}"\n#EXTINF:1,\n{file}\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video">'
            '<Representation id="0" bandwidth="1" mimeType="video/mp4"><BaseURL>'
            "http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period>"
            "</MPD>",
    "smil": '<smil><body><video src="{file}"/></body></smil>',
    "asx": '<ASX version="3"><Entry><Ref href="http://127.0.0.1:{port}/a"/></Entry></ASX>',
    "rtsp text": "RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
    "lavfi": "testsrc",
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_that_a_file_names_is_opened(name, canary, clip, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip)
    os.utime(secret, (1, 1))
    Canary.asked.clear()
    data = SCRIPTS[name].format(port=canary, file=secret).encode()
    start = time.monotonic()
    for read in (lambda: decode_video(data, 2), lambda: probe("video", data)):
        with pytest.raises(MediaError) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60 and not Canary.asked
    assert secret.stat().st_atime == 1  # nor was it read


@pytest.mark.parametrize(("name", "limit", "message"), [
    ("MAX_BYTES", 1000, "bytes are more than the limit of 1000"),
    ("MAX_STREAMS", 1, "more than 1 streams"),
    ("MAX_DURATION", 0.2, "hours, more than 0"),
    ("MAX_SECONDS", -1.0, "took longer than -1 s"),
])  # fmt: skip
def test_every_limit_holds(name, limit, message, monkeypatch):
    data = two_streams(0)
    assert len(decode_video(data, 2)) == 2
    monkeypatch.setattr(opening, name, limit)
    for read in (lambda: decode_video(data, 2), lambda: video.video_facts(data)):
        with pytest.raises(MediaError, match=message):
            read()


def test_decoding_ends_when_the_time_is_over(clip, monkeypatch):
    def looking(monotonic: Callable[[], float]) -> None:
        monkeypatch.setattr(opening, "time", SimpleNamespace(monotonic=monotonic))

    number = itertools.count()
    looking(lambda: 0.0 * next(number))
    decode_video(clip, 10)
    looks = next(number)
    assert looks > 11  # when it starts, and at every packet that is decoded
    for early in range(1, looks):  # in opening, reading packets, decoding
        times = iter([0.0] * early)
        looking(lambda times=times: next(times, 1e6))
        with pytest.raises(MediaError, match="took longer than 120 s"):
            decode_video(clip, 10)
    monkeypatch.undo()
    assert len(decode_video(clip, 10)) == 10


def test_only_files_are_read_and_no_more_of_them_than_the_limit(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")
    assert read_file(file) == b"0123456789" and read_file(file, 3, 4) == b"3456"
    assert read_file(file, 8) == b"89" and read_file(file, 20) == b""
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    for path, message in ((tmp_path / "pipe", "not a file"), ("/dev/zero", "not a file"),
                          (tmp_path, "unreadable"), (tmp_path / "gone", "No such file")):
        with pytest.raises(MediaError, match=message):
            read_file(path)
    with pytest.raises(MediaError, match="ends 2 bytes too early"):
        read_file(file, 4, 8)
    monkeypatch.setattr(opening, "MAX_BYTES", 9)
    with pytest.raises(MediaError, match="more than the limit"):
        read_file(file)
    assert read_file(file, 1) == b"123456789"


def aborts():
    os.abort()


def ended_by(number):
    os.kill(os.getpid(), number)


def raises(error):
    raise error


def refused(number):
    raise MediaError("unreadable") from OSError(number, os.strerror(number))


def takes_memory():
    return np.ones(2**36, np.uint8).sum()


def test_what_hangs_or_crashes_ends_its_own_process_only():
    assert guard.guarded(len, b"abc") == 3
    start = time.monotonic()
    with pytest.raises(MediaError, match="took longer than 0.5 s"):
        guard.guarded(time.sleep, 600, seconds=0.5)
    assert time.monotonic() - start < 120
    with pytest.raises(MediaError, match=r"its decoder crashed \(SIGABRT\)"):
        guard.guarded(aborts)
    with pytest.raises(MediaError, match="of memory"):
        guard.guarded(takes_memory)
    with pytest.raises(MediaError, match="undecodable video of 4 bytes"):
        guard.guarded(decode_video, b"junk", 2)
    kept = guard.guarded(os.getpid)
    assert kept != os.getpid() and guard.guarded(os.getpid) == kept


def test_a_process_that_others_end_says_nothing_of_the_file(monkeypatch):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(MachineError, match=rf"ended by others \({number.name}[^\n]*again$"):
            guard.guarded(ended_by, number)
    with pytest.raises(MachineError, match="code 3"):
        guard.guarded(os._exit, 3)
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
        with pytest.raises(MediaError, match=f"crashed .{number.name}"):
            guard.guarded(ended_by, number)
    guard.end_all()
    monkeypatch.setattr(sys, "executable", "/gone/python")
    with pytest.raises(MachineError, match="^/gone/python: the interpreter cannot be started"):
        guard.guarded(len, b"")


def test_a_process_hears_signals_to_which_the_thread_that_starts_it_is_deaf():
    guard.end_all()  # those that are kept were started before
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with pytest.raises(MachineError, match="ended by others .SIGTERM"):
            guard.guarded(ended_by, signal.SIGTERM)
        with pytest.raises(MediaError, match="took longer than 0.5 s"):
            guard.guarded(time.sleep, 600, seconds=0.5)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_the_kind_of_an_error_comes_back():
    kept = guard.guarded(os.getpid)
    with pytest.raises(MediaError, match="^odd: KeyError: 'x'$"):
        guard.guarded(raises, KeyError("x"))
    with pytest.raises(MediaError, match="^odd: ZeroDivisionError: two lines$"):
        guard.guarded(raises, ZeroDivisionError("two\nlines"))
    for number in (errno.EMFILE, errno.EACCES, errno.ESTALE):
        with pytest.raises(MediaError, match="^unreadable$") as caught:
            guard.guarded(refused, number)
        assert refusal(caught.value) == number
    for number in (errno.ENOMEM, errno.ENOENT):  # memory is limited there, the machine's is not
        with pytest.raises(MediaError, match="^unreadable$") as caught:
            guard.guarded(refused, number)
        assert refusal(caught.value) == 0
    assert guard.guarded(os.getpid) == kept


def test_all_processes_can_be_ended_at_work():
    said = []

    def wait():
        try:
            guard.guarded(time.sleep, 600)
        except MachineError as error:
            said.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(guard._all - set(guard._idle)) < 2:
        time.sleep(0.01)
    guard.end_all()
    for thread in threads:
        thread.join(30)
    assert len(said) == 2 and not guard._all and not guard._idle
    assert guard.guarded(len, b"abc") == 3


def test_threads_have_a_process_each():
    pids = []
    barrier = threading.Barrier(2)
    threads = [
        threading.Thread(target=lambda: (barrier.wait(), guard.guarded(time.sleep, 0.5),
                                         pids.append(guard.guarded(os.getpid))))
        for _ in range(2)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(pids) == 2


@pytest.mark.parametrize("container_format", ["mp4", "avi", "matroska", "flv"])
def test_a_title_in_another_encoding_is_no_matter(container_format):
    codec = "mpeg4" if container_format == "avi" else "libx264"
    data = encode(codec, container_format, moving(10), title="Xaaaaaaaaa")
    spoilt = data.replace(b"Xaaaaaaaaa", b"Caf\xe9 \xff\xfe\x80aa")
    assert spoilt != data
    np.testing.assert_array_equal(decode_video(spoilt, 4), decode_video(data, 4))
    assert probe("video", spoilt) == probe("video", data)


@pytest.mark.parametrize("container_format", ["mp4", "mov"])
def test_cover_art_is_no_video(container_format):
    for read in (lambda data: decode_video(data, 2), lambda data: probe("video", data)):
        with pytest.raises(MediaError, match="no video stream"):
            read(with_cover(container_format))
    data = with_cover(container_format, moving(10))  # the cover is the first stream
    assert decode_video(data, 3).shape == (3, 48, 64, 3)
    assert probe("video", data)[1:] == (64, 48, 10)


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_streams_the_default_one_is_shown(default):
    data, (height, width) = two_streams(default), ((48, 64), (72, 96))[default]
    assert decode_video(data, 3).shape == (3, height, width, 3)
    assert probe("video", data)[1:] == (width, height, 10)


def test_one_list_says_what_counts_as_media(tmp_path):
    from data.datasets.raw import IMAGE_SUFFIXES, VIDEO_SUFFIXES, without_suffix

    assert (IMAGE_SUFFIXES, VIDEO_SUFFIXES) == (IMAGES, VIDEOS)
    assert not set(IMAGES) & set(VIDEOS)
    names = "a.MP4 b.MOV c.mpeg d.ts e.flv f.ogv g.m2ts h.3gp i.heic j.AVIF k.jfif l.JPG m.MTS"
    for name in names.split():
        (tmp_path / name).touch()
        assert without_suffix(name) == name[0]
    (tmp_path / "n.txt").touch()
    assert [path.name for path in find_media([tmp_path])] == names.split()
    kinds = [media_kind(tmp_path / name) for name in names.split()]
    assert kinds == ["video"] * 8 + ["image"] * 4 + ["video"]


def test_predicting_reads_through_the_same_door(clip, tmp_path):
    (tmp_path / "a.TS").write_bytes(encode("libx264", "mpegts", moving(10)))
    assert load_clip(tmp_path / "a.TS", 4, 32).shape == (4, 32, 32, 3)
    (tmp_path / "b.mp4").write_bytes(b"ffconcat version 1.0\nfile 'a.TS'\n")
    with pytest.raises(MediaError, match="undecodable video"):
        load_clip(tmp_path / "b.mp4", 4, 32)


def test_what_the_machine_refuses_is_no_files_error(clip, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip)
    for number, kind in ((errno.EMFILE, MachineError), (errno.ENOMEM, MachineError),
                         (errno.ESTALE, MachineError), (errno.EAGAIN, MachineError),
                         (errno.EACCES, MediaError), (errno.EIO, MediaError),
                         (errno.ENOENT, MediaError)):  # fmt: skip
        monkeypatch.setattr(files, "guarded", lambda *given, number=number: refused(number))
        with pytest.raises(kind, match="a.mp4: .*: " if kind is MachineError else "unreadable"):
            load_clip(path, 2, 32)
    monkeypatch.undo()
    guard.end_all()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(MachineError, match="too many open files: allow"):
            load_clip(path, 2, 32)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_is_read_where_it_is_decoded(clip, tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(clip)
    kept = guard.guarded(os.getpid)  # which is elsewhere
    monkeypatch.chdir(tmp_path)
    given = []

    def noted(function, *arguments):
        given.append(arguments)
        return guard.guarded(function, *arguments)

    monkeypatch.setattr(files, "guarded", noted)
    assert load_clip(Path("a.mp4"), 2, 32).shape == (2, 32, 32, 3)
    assert guard.guarded(os.getpid) == kept
    assert not any(isinstance(one, bytes) for one in given[0])
    with pytest.raises(MediaError, match="^unreadable: No such file or directory$"):
        load_clip(Path("gone.mp4"), 2, 32)


def test_an_interruption_waits_for_no_call():
    start, others = time.monotonic(), []
    with pytest.raises(KeyboardInterrupt), guard.calling(2) as pool:
        others += [pool.submit(guard.guarded, time.sleep, 600) for _ in range(8)]
        while len(guard._all - set(guard._idle)) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    for one in others[:2]:
        assert isinstance(one.exception(60), MachineError)
    assert all(one.cancelled() for one in others[2:]) and time.monotonic() - start < 60
    with guard.calling(2) as pool:
        assert pool.submit(guard.guarded, len, b"abc").result() == 3


def test_folders_are_walked_through_links_once_and_errors_are_said(tmp_path, monkeypatch):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for path in ("outside/b/c.mp4", "inside/a.jpg", "inside/._a.jpg", "inside/d/e.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (inside / "link").symlink_to(outside)
    (inside / "d/ring").symlink_to(inside)
    (inside / "d/twice").symlink_to(outside / "b")
    (inside / "gone.jpg").symlink_to("nowhere.jpg")
    found = [str(path.relative_to(inside)) for path in find_media([inside])]
    assert found == ["a.jpg", "d/e.png", "d/twice/c.mp4"]
    real = os.scandir

    def refuses(number):
        def listed(path):
            if str(path).endswith("d"):
                raise OSError(number, os.strerror(number), str(path))
            return real(path)

        return listed

    for number, kind, message in ((errno.EACCES, MachineError, "/d: permission denied: give"),
                                  (errno.EMFILE, MachineError, "/d: too many open files: allow"),
                                  (errno.ENOTDIR, DataError, "/d: cannot be listed: Not a dir")):
        monkeypatch.setattr(os, "scandir", refuses(number))
        with pytest.raises(kind, match=message):
            find_media([inside])


def test_neither_wall_has_a_hole():
    """Formats that name other files are not among the allowed ones, nor is any protocol."""
    naming = {"concat", "dash", "hls", "image2", "image2pipe", "imf", "rtp", "rtsp", "sdp", "tee"}
    assert not naming & set(opening.FORMATS.split(","))
    assert opening._PROTOCOLS == "none"
