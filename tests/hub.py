"""A Hugging Face Hub on 127.0.0.1 for tests, in memory, that can misbehave. Serves what the real client asks of a model or dataset repository
(LFS without Xet). `serve(failing=.3, seed=0)`: that share of requests ends with HTTP 503, or with the connection cut in the middle of a body."""
import base64, hashlib, json, random, re, socket, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit|paths-info|auth-check|commits|refs)(?:/(.*))?)?$")
FILE = re.compile(r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
LFS = re.compile(r"/(?:(dataset)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch$")
BINARY = (".safetensors", ".parquet", ".pt", ".pth", ".png", ".mp4", ".bin", ".whl")
# what each token may do: everything of its owner's, read only, nothing of a repository that is private
TOKENS = {"hf_good": "write", "hf_read": "read", "hf_blind": "fineGrained"}
DATE = "2026-01-01T00:00:00.000Z"

class Refusal(Exception):
    "An HTTP error of the Hub: status, message, X-Error-Code."

def object_id(data): return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

class Repository:
    def __init__(self, private): self.private, self.commits = private, [("initial commit", {})]

    @property
    def files(self): return self.commits[-1][1]

    def commit(self, title, files): self.commits.append((title, files))
    def sha(self, number=None): return hashlib.sha1(str(len(self.commits) - 1 if number is None else number).encode()).hexdigest()

    def at(self, revision): # files of a commit
        if revision in ("main", ""): return self.files
        for number, (_, files) in enumerate(self.commits):
            if self.sha(number) == revision: return files
        raise Refusal(404, "no such revision", "RevisionNotFound")

    def entry(self, path, data):
        entry = dict(type="file", path=path, size=len(data), oid=object_id(data))
        return entry | (dict(lfs=dict(oid=hashlib.sha256(data).hexdigest(), size=len(data), pointerSize=130)) if path.endswith(BINARY) else {})

class Hub(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128
    def __init__(self, port=0, failing=0., seed=0, refuse=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.RLock()
        self.repositories = {}
        self.objects = {}
        self.log = []
        self.failing = failing
        self.random = random.Random(seed)
        self.refuse = refuse  # refuse: (method, path) → status or None

    def repository(self, name, kind="model"): return self.repositories[kind, name]
    def handle_error(self, *args): "A client that was killed is no error."

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""): return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while n := int(self.rfile.readline().split(b";")[0], 16): out += self.rfile.read(n); self.rfile.readline()
        self.rfile.readline()
        return out

    def answer(self):
        hub = self.server
        with hub.lock: fault = hub.random.random() < hub.failing and hub.random.choice(["503", "cut request", "cut answer"])
        if fault == "cut request":
            self.rfile.read(min(10, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            hub.log.append((self.command, self.path, fault))
            return self.connection.shutdown(socket.SHUT_RDWR)
        raw, headers = self.body(), {}
        try:
            if fault == "503": raise Refusal(503, "over capacity", None)
            if hub.refuse and (status := hub.refuse(self.command, self.path)): raise Refusal(status, "refused", None)
            with hub.lock: status, data, headers = (*self.route(hub, raw), {})[:3]
        except Refusal as e:
            status, message, code = e.args
            data, headers = dict(error=message), {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        hub.log.append((self.command, self.path, fault or status))
        if not isinstance(data, bytes): data, headers = json.dumps(data).encode(), {"Content-Type": "application/json"} | headers
        head = "\r\n".join([f"HTTP/1.1 {status} -", *(f"{k}: {v}" for k, v in {"Content-Length": len(data), **headers}.items()), "", ""]).encode()
        whole = head + (b"" if self.command == "HEAD" else data)
        self.wfile.write(whole[:len(head) + len(data) // 2] if fault == "cut answer" else whole)
        if fault == "cut answer": self.close_connection = True
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def find(self, hub, kind, name, write=False):
        repository = hub.repositories.get((kind or "model", name))
        if write and not self.user: raise Refusal(401, "Invalid username or password.", None)
        sees = self.user and self.role != "fineGrained"
        if repository is None or repository.private and not sees: raise Refusal(404, "Repository not found", "RepoNotFound")
        if write and (name.split("/")[0] != self.user or self.role != "write"): raise Refusal(403, "Forbidden", None)
        return repository

    def route(self, hub, raw):
        address, token = urlsplit(self.path), self.headers.get("Authorization", "").removeprefix("Bearer ")
        path = address.path
        self.user = "tester" if token in TOKENS else ""
        self.role = TOKENS.get(token)
        if token and not self.user: raise Refusal(401, "Invalid credentials in Authorization header", None)
        if path == "/api/whoami-v2": return 200, dict(type="user", name=self.user, orgs=[], auth=dict(accessToken=dict(role=self.role)))
        if path == "/api/validate-yaml": return 200, dict(errors=[], warnings=[])
        if path == "/api/repos/create": return self.create(hub, json.loads(raw))
        if m := LFS.match(path): return self.batch(hub, *m.groups(), json.loads(raw))
        if m := re.match(r"/lfs/(\w+)$", path): return self.upload(hub, m[1], raw)
        if m := FILE.match(path): return self.download(self.find(hub, m[1], m[2]), unquote(m[3]), unquote(m[4]))
        if m := API.match(path): return self.api(hub, *m.groups(""), parse_qs(address.query), raw)
        raise Refusal(404, f"no such route: {path}", None)

    def create(self, hub, asked):
        owner, kind = asked.get("organization") or self.user, asked.get("type") or "model"
        name = f"{owner}/{asked['name']}"
        url = f"{hub.url}/{name}" if kind == "model" else f"{hub.url}/{kind}s/{name}"
        if not self.user: raise Refusal(401, "Invalid username or password.", None)
        if owner != self.user or self.role != "write": raise Refusal(403, "You don't have the rights to create a model under this namespace", None)
        if (kind, name) in hub.repositories: return 409, dict(error="You already created this repo", url=url, name=name)
        hub.repositories[kind, name] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
        return 200, dict(url=url, name=name)

    def batch(self, hub, kind, name, asked):
        self.find(hub, kind, name, write=True)
        actions = lambda oid: {} if oid in hub.objects else dict(actions=dict(upload=dict(href=f"{hub.url}/lfs/{oid}")))
        return 200, dict(transfer="basic", objects=[dict(oid=o["oid"], size=o["size"], **actions(o["oid"])) for o in asked["objects"]])

    def upload(self, hub, oid, raw):
        if hashlib.sha256(raw).hexdigest() != oid: raise Refusal(400, "sha256 mismatch", None)
        hub.objects[oid] = raw
        return 200, {}

    def download(self, repository, revision, path):
        if path not in (files := repository.at(revision)): raise Refusal(404, "Entry not found", "EntryNotFound")
        entry = repository.entry(path, data := files[path])
        headers = {"X-Repo-Commit": repository.sha(), "ETag": f'"{entry.get("lfs", entry)["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry: headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": len(data)}
        if not (m := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))): return 200, data, headers
        first, last = int(m[1]), min(int(m[2] or len(data) - 1), len(data) - 1)
        return (206, data[first:last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"}) if first < len(data) else (416, b"", headers)

    def api(self, hub, kind, name, verb, rest, query, raw):
        repository = self.find(hub, kind, name, write=verb in ("preupload", "commit") or verb == "auth-check" and rest == "write")
        if verb == "auth-check": return 200, {}
        if verb == "preupload": return 200, dict(files=[self.mode(repository, f) for f in json.loads(raw)["files"]])
        if verb == "commit": return self.commit(hub, repository, [json.loads(line) for line in raw.split(b"\n") if line], name)
        if verb == "commits": return 200, [dict(id=repository.sha(i), title=title, message="", date=DATE, authors=[]) for i, (title, _) in reversed([*enumerate(repository.commits)])]
        if verb == "refs": return 200, dict(branches=[dict(name="main", ref="refs/heads/main", targetCommit=repository.sha())], tags=[], pullRequests=[], converts=[])
        files = repository.at(unquote(rest.partition("/")[0]))
        entries = [repository.entry(p, d) for p, d in sorted(files.items())]
        if verb == "tree":
            under = unquote(rest.partition("/")[2]).strip("/")
            if under and not any(e["path"].startswith(under + "/") for e in entries): raise Refusal(404, "no such folder", "EntryNotFound")
            return 200, [e for e in entries if not under or e["path"].startswith(under + "/")]
        if verb == "paths-info": return 200, [e for e in entries if e["path"] in parse_qs(raw.decode()).get("paths", [])]
        sha = rest if re.fullmatch("[0-9a-f]{40}", rest) else repository.sha()
        return 200, dict(_id=name, id=name, modelId=name, author=name.split("/")[0], sha=sha, private=repository.private, gated=False, disabled=False, tags=[], downloads=0, likes=0,
                         createdAt=DATE, lastModified=DATE, siblings=[dict(rfilename=e["path"], size=e["size"], blobId=e["oid"]) for e in entries])

    def mode(self, repository, asked):
        mode = dict(path=asked["path"], uploadMode="lfs" if asked["path"].endswith(BINARY) else "regular", shouldIgnore=False)
        if (data := repository.files.get(asked["path"])) is None: return mode
        entry = repository.entry(asked["path"], data)
        return mode | dict(oid=entry.get("lfs", entry)["oid"])

    def commit(self, hub, repository, operations, name):
        files, title = dict(repository.files), ""
        for operation in operations:
            key, value = operation["key"], operation["value"]
            if key == "header":
                title = value.get("summary", "")
                if value.get("parentCommit", repository.sha()) != repository.sha(): raise Refusal(412, "the branch has moved on", None)
            elif key == "file": files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile": files[value["path"]] = hub.objects[value["oid"]]
            elif files.pop(value["path"], None) is None: raise Refusal(404, f"{value['path']} does not exist", "EntryNotFound")
        repository.commit(title, files)
        return 200, dict(success=True, commitOid=repository.sha(), commitUrl=f"{hub.url}/{name}/commit/{repository.sha()}", hookOutput="")

def serve(**settings):
    threading.Thread(target=(hub := Hub(**settings)).serve_forever, daemon=True).start()
    return hub

def client(hub, home, token="hf_good"):
    "The environment variables with which a process talks to this Hub, and to nothing else."
    return dict(HF_ENDPOINT=hub.url, HF_HOME=str(home), HF_TOKEN=token, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_UPDATE_DOWNLOAD_COUNTS="0", HF_HUB_OFFLINE="0")
