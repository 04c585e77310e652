"""A server of Google Cloud Storage's JSON API, as much of it as gcsfs, TensorStore and Orbax use.

Objects are in memory, with generations and the conditions on them; every request is noted.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")


class Object(NamedTuple):
    """What an object holds, and its generation."""

    content: bytes
    generation: int


class Request(NamedTuple):
    """A request: its method, path and query, the object that it is of, and bytes both ways."""

    method: str
    path: str
    name: str
    received: int
    sent: int


class Server:
    """Serves while it is a context.

    Attributes:
      objects: by name.
      requests: all that came, in order.
      before: called with the method and the object's name before each change is made; with a
        PermissionError it is refused.
      reading: the same, before each object is read or described.
    """

    def __init__(self):
        self.objects: dict[str, Object] = {}
        self.requests: list[Request] = []
        self.before = self.reading = lambda method, name: None
        self.lock = threading.RLock()
        self._numbers = itertools.count(time.time_ns())
        self._uploads: dict[str, tuple[str, bytearray]] = {}
        self._http = _Http(("127.0.0.1", 0), type("_Bound", (_Handler,), {"owner": self}))

    @property
    def address(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self):
        """Variables by which the clients come here."""
        return {"STORAGE_EMULATOR_HOST": self.address, "TENSORSTORE_GCS_HTTP_URL": self.address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "NO_GCE_CHECK": "true",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # it asks by another protocol

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def put(self, name, content):
        """Writes an object; gives its new state."""
        self.before("PUT", name)
        with self.lock:
            self.objects[name] = Object(bytes(content), next(self._numbers))
            return self.objects[name]

    def begin(self, name):
        """Begins an upload in parts; gives its number."""
        number = str(next(self._numbers))
        self._uploads[number] = name, bytearray()
        return number

    def part(self, number, content, said):
        """Takes a part; the object once it is whole, else None."""
        name, taken = self._uploads[number]
        if content:
            taken += content
        total = said.rpartition("/")[2]
        if not said or total.isdecimal() and int(total) == len(taken):
            del self._uploads[number]
            return name, self.put(name, taken)
        return name, len(taken)

    def cancel(self, number):
        """Ends an upload of which there will be no object."""
        del self._uploads[number]

    def below(self, prefix):
        """Names of objects, sorted."""
        return sorted(name for name in self.objects if name.startswith(prefix))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        """Clients are killed at times: nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer takes 40 ms
    wbufsize = -1
    owner: Server

    def log_message(self, *_):
        pass

    def _take(self):
        """The body."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self):
        body = self._take()
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(
            url.query, keep_blank_values=True).items()}
        found = _OBJECT.fullmatch(url.path)
        name = unquote(found[2]) if found else query.get("name", "")
        self._sent = 0
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._answer(url.path, query, found, name, body)
        except PermissionError:
            self._fail(403, "The caller does not have storage.objects.create access.")
        finally:
            self.owner.requests.append(Request(
                self.command, self.path, name, len(body), self._sent))

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

    def _answer(self, path, query, found, name, body):
        bucket = path.partition("/b/")[2].partition("/")[0]
        if bucket != BUCKET:
            self._fail(404, "The specified bucket does not exist.")
        elif path.startswith(("/upload/", "/resumable/")):
            self._upload(query, name, body)
        elif "/rewriteTo/" in path or "/copyTo/" in path:
            self._copy(path)
        elif found:
            self._object(query, name)
        elif path.rstrip("/").endswith(f"/b/{BUCKET}"):
            self._send(200, {"kind": "storage#bucket", "name": BUCKET, "id": BUCKET,
                             "location": "US", "storageClass": "STANDARD"})
        elif path.rstrip("/").endswith("/o"):
            self._list(query)
        else:
            self._fail(404, f"Not Found: {path}")

    def _object(self, query, name):
        one = self.owner.objects.get(name)
        if self.command == "DELETE":
            with self.owner.lock:
                one = self.owner.objects.get(name)
                if one is None:
                    return self._fail(404, f"No such object: {BUCKET}/{name}")
                if not self._as_asked(query, one):
                    return self._fail(412, "conditionNotMet")
                self.owner.before("DELETE", name)
                self.owner.objects.pop(name, None)
            return self._send(204, b"")
        self.owner.reading(self.command, name)
        if one is None:
            return self._fail(404, f"No such object: {BUCKET}/{name}")
        if not self._as_asked(query, one):
            return self._fail(412 if "ifGenerationMatch" in query else 304, "conditionNotMet")
        if query.get("alt") != "media":
            return self._send(200, _described(name, one))
        first, last, size = 0, len(one.content) - 1, len(one.content)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked:
            if asked[1]:
                first, last = int(asked[1]), min(int(asked[2] or last), last)
            else:
                first = max(size - int(asked[2]), 0)
            if first >= size:
                return self._fail(416, "Requested range not satisfiable")
        self._send(206 if asked else 200, one.content[first:last + 1], {
            "x-goog-generation": str(one.generation), "Last-Modified": formatdate(usegmt=True),
            **({"Content-Range": f"bytes {first}-{last}/{size}"} if asked else {
                "x-goog-hash": f"crc32c={_crc(one.content)}"})})

    @staticmethod
    def _as_asked(query, one):
        generation = one.generation if one else 0
        return (int(query.get("ifGenerationMatch", generation)) == generation
                and int(query.get("ifGenerationNotMatch", -1)) != generation
                and int(query.get("generation", generation)) == generation)

    def _upload(self, query, name, body):
        kind = query.get("uploadType", "")
        if self.command == "DELETE":
            self.owner.cancel(query["upload_id"])
            return self._send(499, b"")
        if "upload_id" in query:
            name, done = self.owner.part(query["upload_id"], body,
                                         self.headers.get("Content-Range", ""))
            if isinstance(done, int):
                return self._send(308, b"", {"Range": f"bytes=0-{done - 1}"} if done else {})
            return self._send(200, _described(name, done))
        if kind == "resumable":
            name = name or json.loads(body)["name"]
            return self._send(200, b"", {"Location": f"{self.owner.address}/resumable/upload/b/"
                                         f"{BUCKET}/o?upload_id={self.owner.begin(name)}"})
        if kind == "multipart":
            mark = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, about, content, _ = (b"\n" + body).split(b"\n--" + mark)
            name = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])["name"]
            body = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1].removesuffix(b"\r")
        with self.owner.lock:
            if not self._as_asked(query, self.owner.objects.get(name)):
                return self._fail(412, "conditionNotMet")
            return self._send(200, _described(name, self.owner.put(name, body)))

    def _copy(self, path):
        source, _, target = path.partition("/rewriteTo/" if "/rewriteTo/" in path else "/copyTo/")
        one = self.owner.objects.get(unquote(source.rpartition("/o/")[2]))
        name = unquote(target.partition("/o/")[2])
        if one is None:
            return self._fail(404, "No such object")
        there = _described(name, self.owner.put(name, one.content))
        return self._send(200, there if "/copyTo/" in path else {"done": True, "resource": there})

    def _list(self, query):
        prefix, end = query.get("prefix", ""), query.get("delimiter", "")
        self.owner.reading("LIST", prefix)
        names, folders = [], set()
        for name in self.owner.below(prefix):
            rest = name[len(prefix):]
            if end and end in rest:
                folders.add(prefix + rest.partition(end)[0] + end)
            elif query.get("startOffset", "") <= name and (
                    not query.get("endOffset") or name < query["endOffset"]):
                names.append(name)
        first = int(query.get("pageToken") or 0)
        last = first + int(query.get("maxResults") or 1000)
        more = {"nextPageToken": str(last)} if last < len(names) else {}
        self._send(200, {"kind": "storage#objects", "prefixes": sorted(folders), "items": [
            _described(name, one) for name in names[first:last]
            if (one := self.owner.objects.get(name))], **more})

    def _fail(self, code, said):
        self._send(code, b"" if code == 304 else {"error": {"code": code, "message": said}})

    def _send(self, code, content: Any, headers=()):
        plain = isinstance(content, bytes)
        body = content if plain else json.dumps(content).encode()
        self._sent = len(body)
        self.send_response(code)
        self.send_header("Content-Type", "application/octet-stream" if plain else
                         "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _described(name, one):
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.generation / 1e9))
    return {"kind": "storage#object", "id": f"{BUCKET}/{name}/{one.generation}", "name": name,
            "bucket": BUCKET, "generation": str(one.generation), "metageneration": "1",
            "size": str(len(one.content)), "contentType": "application/octet-stream",
            "timeCreated": now, "updated": now, "storageClass": "STANDARD",
            "md5Hash": base64.b64encode(hashlib.md5(one.content).digest()).decode(),
            "crc32c": _crc(one.content), "etag": str(one.generation)}


def _crc(content):
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
