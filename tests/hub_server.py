"""A small real HTTP server that keeps repositories as the Hugging Face hub does, as far as an upload asks for it."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub import ModelCard

TOKEN = "hf_" + "s3cret" * 5
FIRST = {".gitattributes": b"*.safetensors filter=lfs\n"}
LARGE = (".safetensors", ".gguf")


@dataclass
class Repository:
    """A repository: for each branch its files, and whether others may see it."""

    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": dict(FIRST)})
    private: bool = False

    def commit(self, branch):
        """The name of the newest commit of a branch."""
        files = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.branches[branch].items())
        return hashlib.sha1(json.dumps(files).encode()).hexdigest()

    def info(self, name, branch):
        """What the hub says of a branch."""
        files = self.branches[branch]
        tags = ModelCard(files["README.md"].decode()).data.tags or [] if "README.md" in files else []
        siblings = [{"rfilename": file} for file in files]
        return {
            "id": name,
            "modelId": name,
            "private": self.private,
            "sha": self.commit(branch),
            "siblings": siblings,
            "tags": tags,
        }


class Hub(ThreadingHTTPServer):
    """The hub; ``fails`` maps the beginning of a request such as ``POST /api/repos`` to an answer in its place."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories, self.objects, self.requests, self.fails = {}, {}, [], {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, said=None, **headers):
        body = json.dumps(said if said is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def handled(self):
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        hub = self.server
        hub.requests.append(f"{self.command} {path}")
        for beginning, (status, said) in hub.fails.items():
            if f"{self.command} {path}".startswith(beginning):
                return self.answer(status, {"error": said}, X_Error_Message=said)
        if path.startswith("/lfs/"):
            # As in the hub's storage: the address itself is the permission.
            oid = path.removeprefix("/lfs/")
            assert hashlib.sha256(body).hexdigest() == oid
            hub.objects[oid] = body
            return self.answer(200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."}, X_Error_Message="Invalid credentials")
        if path == "/api/whoami-v2":
            return self.answer(200, {"name": "user", "type": "user"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._repository(path.removeprefix("/api/models/").split("/", 3), body)

    do_GET = do_POST = do_PUT = handled

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _create(self, asked):
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if not name.startswith("user/"):
            said = "You don't have the rights to create a model under this namespace"
            return self.answer(403, {"error": said}, X_Error_Message=said)
        if name in self.server.repositories:
            return self.answer(
                409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}
            )
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[name] = Repository(private=bool(private))
        return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def _batch(self, asked):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}} for one in asked["objects"]
        ]
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def _repository(self, parts, body):
        name, action = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision"
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        branch = parts[3] if len(parts) > 3 else "main"
        if action == "branch":
            if branch in repository.branches:
                return self.answer(409, {"error": "Reference already exists"})
            repository.branches[branch] = dict(repository.branches["main"])
            return self.answer(201)
        if branch not in repository.branches:
            return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        if action == "revision":
            return self.answer(200, repository.info(name, branch))
        if action == "preupload":
            files = json.loads(body)["files"]
            modes = [(one["path"], "lfs" if one["path"].endswith(LARGE) else "regular") for one in files]
            return self.answer(
                200, {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}
            )
        return self._commit(repository, name, branch, [json.loads(line) for line in body.splitlines()])

    def _commit(self, repository, name, branch, lines):
        files = dict(repository.branches[branch])
        for line in lines:
            said = line["value"]
            if line["key"] == "header" and said.get("parentCommit", repository.commit(branch)) != repository.commit(
                branch
            ):
                return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            if line["key"] == "file":
                files[said["path"]] = base64.b64decode(said["content"])
            if line["key"] == "lfsFile":
                files[said["path"]] = self.server.objects[said["oid"]]
        repository.branches[branch] = files
        oid = repository.commit(branch)
        return self.answer(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"}
        )

    def log_message(self, *args):
        """Nothing is said."""


@contextmanager
def served():
    """A hub for the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
