"""A small Kaggle on loopback: the real, unpatched client reaches it through environment variables alone.

    with KaggleServer() as server:
        competition = server.add_competition("a-slug", workspace / "data", workspace / "test_truth.csv")
        server.fail("ListDataFiles", status=503, times=2)
        run("invoke", "download", "--competition", "a-slug", env=server.environment(home))
        assert server.names().count("ListDataFiles") == 3

Requests arrive as to a proxy (``http_proxy``), so any port will do and nothing can stray. A request is named by
its method of Kaggle's API (``CreateSubmission``), or ``storage`` (the bytes of a download), or ``upload``.
"""

import base64
import contextlib
import datetime
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

TOKEN, USERNAME, KEY, REFRESH_TOKEN = "KGAT_0123456789abcdef", "ada", "0123456789abcdef0123", "refresh-0123456789"
PAGE_SIZE = 20
FOREVER = 10**9
SUBMISSION_HEADER = "ID,image_id,x_min,y_min,x_max,y_max,confidence,label"
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next ``times`` requests of a name. The fields combine where that makes sense."""

    name: str
    times: int = 1
    status: int | None = None  # answer with this status instead
    message: str = ""  # the reason, in Kaggle's JSON form
    body: bytes | None = None  # the whole body instead, as it is (an HTML page)
    answer: Mapping[str, Any] | None = None  # what is answered instead, as if all were well
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: Literal["before", "after", None] = None  # close the line: before doing anything, or after doing it
    cut_after: int | None = None  # bytes of the body that are sent before the line is closed
    wrong_byte: int | None = None  # position of a byte of the body that is changed
    slow_seconds: float = 0  # pause before the answer
    bytes_per_second: float | None = None  # of the body


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, and the status that it got (0: the line was closed)."""

    verb: str
    name: str
    url: str
    body: bytes
    authorization: str
    status: int


@dataclass
class Competition:
    """What the server knows about one competition; tests may change any of it."""

    slug: str
    archive: bytes
    files: list[tuple[str, int]]
    truth: Path | None = None
    rules_accepted: bool = True
    daily_limit: int = 5
    pending_polls: int = 1  # lists in which a new submission is still pending
    submissions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def md5(self) -> bytes:
        return hashlib.md5(self.archive).digest()


class Kernel:
    """One version of a kernel: the script as it was pushed, run for real in an empty folder beside its inputs."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self.folder, self.request = folder, request
        (folder / "working").mkdir()
        (folder / "kernel.py").write_text(request["text"])
        # Nothing of the user's: no credentials, no proxy, no home, not the project's folder.
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        plain = {"OMP_NUM_THREADS": "1", "HOME": str(folder)}
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(folder / "kernel.py")], cwd=folder / "working", stdout=self._log,
            stderr=subprocess.STDOUT, start_new_session=True, env=kept | plain,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        code = self._process.poll()
        if code is None:
            return {"status": "RUNNING"}
        return {"status": "COMPLETE"} if code == 0 else {"status": "ERROR", "failureMessage": f"exit code {code}"}

    def log(self) -> str:
        text = (self.folder / "log").read_text(errors="replace")
        return json.dumps([{"stream_name": "stdout", "time": 0.0, "data": line} for line in text.splitlines(True)])

    def output(self) -> list[str]:
        """The files that Kaggle would keep; none while the session runs."""
        working = self.folder / "working"
        paths = [path for path in working.rglob("*") if path.is_file()]
        return [] if self._process.poll() is None else sorted(str(path.relative_to(working)) for path in paths)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the trainings that it started
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Answer:
    """What goes back: a status, a body, headers; ``public`` ones are files with ranges."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error as Kaggle words it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class KaggleServer:
    """The server's state, open to the tests; entering it starts it on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.competitions: dict[str, Competition] = {}
        self.tokens = {TOKEN: USERNAME}
        self.keys = {USERNAME: KEY}
        self.uploads: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.errors: list[str] = []
        self.now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
        self.methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "IntrospectToken": self._introspect,
            "GenerateAccessToken": self._generate_token,
            "ListDataFiles": self._list_files,
            "DownloadDataFiles": self._download,
            "GetSubmissionLimits": self._limits,
            "StartSubmissionUpload": self._start_upload,
            "CreateSubmission": self._create,
            "ListSubmissions": self._list_submissions,
            "GetSubmission": self._get_submission,
            "GetLeaderboard": self._leaderboard,
            "GetAcceleratorQuotaStatistics": self._quota,
            "SaveKernel": self._save_kernel,
            "GetKernelSessionStatus": self._kernel_status,
            "ListKernelSessionOutput": self._kernel_output,
            "StartBlobUpload": self._start_blob,
            "GetDatasetStatus": self._dataset_status,
            "CreateDataset": self._create_dataset,
            "CreateDatasetVersion": self._create_dataset,
        }
        self.files: dict[str, bytes] = {}  # what storage gives out, by path
        self.gpu_seconds = 30 * 3600  # left this week
        self.kernels: dict[str, list[Kernel]] = {}  # versions by OWNER/SLUG, the first one first
        self.datasets: dict[str, dict[str, bytes]] = {}  # files by OWNER/SLUG
        self._faults: list[Fault] = []
        self._refs = 40_000_000
        self._lock = threading.RLock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.kaggle = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "KaggleServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for versions in self.kernels.values():
            for kernel in versions:
                kernel.end()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """This process's environment, turned towards this server; without a token there are no credentials."""
        strange = re.compile(r"kaggle|.*_proxy$|xdg_config_home$|verbose", re.IGNORECASE)
        kept = {name: value for name, value in os.environ.items() if not strange.match(name)}
        ours = {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",  # any other word would go to production
            "http_proxy": self.url,
            "https_proxy": self.url,
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
        }
        return kept | ours | ({} if token is None else {"KAGGLE_API_TOKEN": token})

    def add_competition(self, slug: str, data: Path, truth: Path | None = None) -> Competition:
        """Offer the files of a folder as a competition; ``truth`` (boxes of the test images) scores submissions."""
        paths = sorted(path for path in data.rglob("*") if path.is_file() and path.name != "README.md")
        names = [path.relative_to(data).as_posix() for path in paths]
        archive = zipped({name: path.read_bytes() for name, path in zip(names, paths, strict=True)})
        files = [(name, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
        self.competitions[slug] = Competition(slug, archive, files, truth)
        return self.competitions[slug]

    def fail(self, name: str, **fault: Any) -> None:
        """Let the next requests of that name go wrong; see Fault."""
        with self._lock:
            self._faults.append(Fault(name, **fault))

    def forget(self) -> None:
        """Clear what was seen and what is still to go wrong; competitions and submissions stay."""
        with self._lock:
            self._faults.clear()
            self.seen.clear()
            self.errors.clear()

    def waiting(self) -> list[str]:
        """The names of the requests that are still to go wrong."""
        with self._lock:
            return [fault.name for fault in self._faults]

    def names(self) -> list[str]:
        """The names of the requests so far, in order."""
        with self._lock:
            return [one.name for one in self.seen]

    def answer(self, verb: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Fault, Answer]:
        """The name of a request, its fault (or one that does nothing) and what is to be answered."""
        path = urllib.parse.urlsplit(url).path
        kind = path.split("/")[1]
        name = {"storage": "storage", "upload": "upload"}.get(kind, path.rsplit("/", 1)[-1])
        fault = self._next_fault(name)
        time.sleep(fault.slow_seconds)
        if fault.drop == "before":
            return name, fault, Answer(0)
        if fault.answer is not None:
            return name, fault, _json(200, fault.answer)
        if fault.status is not None and fault.drop is None:
            return name, fault, _broken(fault)
        try:
            with self._lock:
                return name, fault, self._answer(verb, name, path, headers, body)
        except Refusal as refusal:
            return name, fault, _error(refusal.status, refusal.message)

    def _answer(self, verb: str, name: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if name == "storage":
            return _ranged(self._file(path), headers)
        if name == "upload":
            self.uploads[path.rsplit("/", 1)[-1]] = body
            return Answer(200)
        if verb != "POST" or name not in self.methods:
            raise Refusal(404, f"no such method: {verb} {path}")
        if name not in ("IntrospectToken", "GenerateAccessToken"):
            self.user(headers)
        result = self.methods[name](json.loads(body or b"{}"))
        return result if isinstance(result, Answer) else _json(200, result)

    def user(self, headers: Mapping[str, str]) -> str:
        """Who asks. Refuses (401) what is neither a known token nor a known name with its key."""
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and credentials in self.tokens:
            return self.tokens[credentials]
        if scheme == "Basic":
            name, _, key = base64.b64decode(credentials).decode().partition(":")
            if self.keys.get(name) == key:
                return name
        raise Refusal(401, "Unauthenticated: the request lacks valid credentials")

    def competition(self, slug: str) -> Competition:
        """The competition of a request. Refuses (404) an unknown one, (403) one that was not joined."""
        found = self.competitions.get(slug)
        if found is None:
            raise Refusal(404, f"Competition not found: {slug}")
        if not found.rules_accepted:
            raise Refusal(403, "You must accept this competition's rules before you'll be able to continue.")
        return found

    def _next_fault(self, name: str) -> Fault:
        with self._lock:
            for number, fault in enumerate(self._faults):
                if fault.name == name:
                    self._faults[number : number + 1] = [replace(fault, times=fault.times - 1)] * (fault.times > 1)
                    return fault
        return Fault(name, times=0)

    def _file(self, path: str) -> bytes:
        if path in self.files:
            return self.files[path]
        slug = Path(path).stem
        return self.competitions[slug].archive

    def _introspect(self, request: dict[str, Any]) -> Any:
        name = self.tokens.get(request.get("token", ""))
        return {"active": name is not None} | ({} if name is None else {"username": name})

    def _generate_token(self, request: dict[str, Any]) -> Any:
        if request.get("refreshToken") != REFRESH_TOKEN:
            raise Refusal(401, "the refresh token is not valid")
        return {"token": TOKEN, "expiresIn": 3600}

    def _list_files(self, request: dict[str, Any]) -> Any:
        files = self.competition(request["competitionName"]).files
        start = int(request.get("pageToken") or 0)
        shown = files[start : start + PAGE_SIZE]
        more = {"nextPageToken": str(start + PAGE_SIZE)} if start + PAGE_SIZE < len(files) else {}
        entries = [
            {"name": name, "totalBytes": size, "creationDate": "2025-01-02T03:04:05.678Z"} for name, size in shown
        ]
        return {"files": entries} | more

    def _download(self, request: dict[str, Any]) -> Answer:
        slug = self.competition(request["competitionName"]).slug
        return Answer(302, headers={"Location": f"http://storage.localhost/storage/{slug}.zip?signature=x"})

    def _limits(self, request: dict[str, Any]) -> Any:
        competition = self.competition(request["competitionName"])
        today = self._today(competition)
        return {
            "numToday": today,
            "numTotal": len(competition.submissions),
            "numAllowedNow": max(0, competition.daily_limit - today),
        }

    def _start_upload(self, request: dict[str, Any]) -> Any:
        self.competition(request["competitionName"])
        token = f"blob-{len(self.seen)}"
        return {"token": token, "createUrl": f"http://storage.localhost/upload/{token}"}

    def _create(self, request: dict[str, Any]) -> Any:
        competition = self.competition(request["competitionName"])
        content = self.uploads.get(request["blobFileTokens"])
        if content is None:
            raise Refusal(400, "The uploaded file was not found")
        if self._today(competition) >= competition.daily_limit:
            raise Refusal(
                400, f"You have used all {competition.daily_limit} submissions of today. Try again in 5 hours."
            )
        self._refs += 1
        score, reason = _judged(content, competition.truth)
        competition.submissions.append(
            {
                "ref": self._refs,
                "date": self.now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                "description": request.get("submissionDescription", ""),
                "fileName": "submission.csv",
                "totalBytes": len(content),
                "score": score,
                "reason": reason,
                "polls": competition.pending_polls,
                "content": content,
            }
        )
        return {"message": "Successfully submitted", "ref": self._refs}

    def _list_submissions(self, request: dict[str, Any]) -> Any:
        competition = self.competition(request["competitionName"])
        size = min(request.get("pageSize") or PAGE_SIZE, PAGE_SIZE)
        start = (max(request.get("page") or 1, 1) - 1) * size
        newest_first = competition.submissions[::-1]
        shown = [_shown(one) for one in newest_first[start : start + size]]
        for one in competition.submissions:
            one["polls"] = max(0, one["polls"] - 1)
        return {"submissions": shown}

    def _get_submission(self, request: dict[str, Any]) -> Any:
        for competition in self.competitions.values():
            for one in competition.submissions:
                if one["ref"] == request.get("ref"):
                    one["polls"] = max(0, one["polls"] - 1)
                    return _shown(one)
        raise Refusal(404, "Submission not found")

    def _leaderboard(self, request: dict[str, Any]) -> Any:
        done = [one for one in self.competition(request["competitionName"]).submissions if one["score"] is not None]
        best = max(done, key=lambda one: one["score"], default=None)
        ours = [] if best is None else [{"teamId": 7, "teamName": USERNAME, "submissionDate": best["date"],
                                         "score": f"{best['score']:.5f}"}]  # fmt: skip
        floor = {"teamId": 1, "teamName": "prior", "submissionDate": "2025-01-02T03:04:05.678Z", "score": "0.01900"}
        return {"submissions": sorted([*ours, floor], key=lambda row: row["score"], reverse=True)}

    def _quota(self, request: dict[str, Any]) -> Any:
        return {"gpuQuota": {"timeUsed": "0s", "totalTimeAllowed": f"{self.gpu_seconds}s"}}

    def _save_kernel(self, request: dict[str, Any]) -> Any:
        versions = self.kernels.setdefault(request["slug"], [])
        competitions, datasets = request.get("competitionDataSources", []), request.get("datasetDataSources", [])
        unknown = [slug for slug in competitions if slug not in self.competitions]
        if unknown:
            return {"invalidCompetitionSources": unknown}
        folder = Path(tempfile.mkdtemp(prefix="kernel-"))
        for slug in competitions:
            with zipfile.ZipFile(io.BytesIO(self.competitions[slug].archive)) as archive:
                archive.extractall(folder / "input" / slug)
        for ref in datasets:
            for name, content in self.datasets[ref].items():
                path = folder / "input" / ref.split("/")[1] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        versions.append(Kernel(folder, request))
        number = len(versions)
        return {"ref": request["slug"], "url": f"https://www.kaggle.com/code/{request['slug']}",
                "versionNumber": number}  # fmt: skip

    def _kernel(self, request: dict[str, Any]) -> "Kernel":
        versions = self.kernels.get(f"{request['userName']}/{request['kernelSlug']}", [])
        label = request.get("versionLabel") or f"v{len(versions)}"
        if not versions or not 0 < int(label[1:]) <= len(versions):
            raise Refusal(404, f"no version {label} of {request['kernelSlug']}")
        return versions[int(label[1:]) - 1]

    def _kernel_status(self, request: dict[str, Any]) -> Any:
        return self._kernel(request).status()

    def _kernel_output(self, request: dict[str, Any]) -> Any:
        kernel = self._kernel(request)
        paths = kernel.output()
        start = int(request.get("pageToken") or 0)
        shown = paths[start : start + PAGE_SIZE]
        place = f"/storage/{kernel.folder.name}"
        for path in shown:
            self.files[f"{place}/{path}"] = (kernel.folder / "working" / path).read_bytes()
        more = {"nextPageToken": str(start + PAGE_SIZE)} if start + PAGE_SIZE < len(paths) else {}
        entries = [
            {"fileName": path, "url": f"http://storage.localhost{place}/{path}?signature=x"} for path in shown
        ]
        return {"files": entries, "log": kernel.log()} | more

    def _start_blob(self, request: dict[str, Any]) -> Any:
        token = f"{request['name']}:{len(self.seen)}"
        return {"token": token, "createUrl": f"http://storage.localhost/upload/{token}"}

    def _dataset_status(self, request: dict[str, Any]) -> Any:
        if f"{request['ownerSlug']}/{request['datasetSlug']}" not in self.datasets:
            raise Refusal(404, "Dataset not found")
        return {"status": "READY"}

    def _create_dataset(self, request: dict[str, Any]) -> Any:
        ref = f"{request['ownerSlug']}/{request.get('slug') or request['datasetSlug']}"
        tokens = [file["token"] for file in request.get("body", request)["files"]]
        self.datasets[ref] = {token.split(":")[0]: self.uploads[token] for token in tokens}
        return {"ref": ref, "url": f"https://www.kaggle.com/datasets/{ref}", "status": "ok"}

    def _today(self, competition: Competition) -> int:
        today = self.now().strftime("%Y-%m-%d")
        return sum(one["date"].startswith(today) for one in competition.submissions)


class _Http(ThreadingHTTPServer):
    """The listening half; what goes wrong in a request is kept for the tests, but for clients that went away."""

    daemon_threads = True
    kaggle: KaggleServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.kaggle.errors.append(repr(error))


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the server what to answer, and sends it as whole as the fault lets it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: the server keeps what it saw."""

    def do_CONNECT(self) -> None:
        self.send_error(403, "nothing leaves this machine")

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_GET

    def _handle(self) -> None:
        server = self.server.kaggle
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            name, fault, answer = server.answer(self.command, self.path, self.headers, body)
        except Exception as error:
            server.errors.append(repr(error))
            name, fault, answer = "error", Fault(""), _error(500, "the test server failed: see server.errors")
        dropped = fault.drop is not None
        asked = self.headers.get("Authorization", "")
        server.seen.append(Seen(self.command, name, self.path, body, asked, 0 if dropped else answer.status))
        try:
            if not dropped:
                self._send(answer, fault)
            if dropped or fault.cut_after is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True  # the client went away, as a killed one does

    def _send(self, answer: Answer, fault: Fault) -> None:
        body = bytearray(answer.body)
        if fault.wrong_byte is not None:
            body[fault.wrong_byte] ^= 0xFF
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(body) if fault.cut_after is None else min(fault.cut_after, len(body))
        block = _BLOCK if fault.bytes_per_second is None else max(1, int(fault.bytes_per_second / 20))
        for start in range(0, end, block):
            self.wfile.write(body[start : min(start + block, end)])
            if fault.bytes_per_second is not None:
                time.sleep(block / fault.bytes_per_second)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip archive with these files, stored as Kaggle stores them."""
    goal = io.BytesIO()
    with zipfile.ZipFile(goal, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 1, 2, 3, 4, 6)), content, zipfile.ZIP_DEFLATED)
    return goal.getvalue()


def _json(status: int, value: Any) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _error(status: int, message: str) -> Answer:
    return _json(status, {"error": {"code": status, "message": message, "status": "ERROR"}})


def _broken(fault: Fault) -> Answer:
    status = fault.status or 500
    made = _error(status, fault.message) if fault.body is None else Answer(status, fault.body)
    kind = {} if fault.body is None else {"Content-Type": "text/html"}
    return Answer(status, made.body, {**made.headers, **kind, **fault.headers})


def _ranged(content: bytes, headers: Mapping[str, str]) -> Answer:
    """A file as Kaggle's storage sends it: whole, or from a byte on if it is still the same file."""
    digest = hashlib.md5(content)
    tag = f'"{digest.hexdigest()}"'
    common = {
        "Content-Type": "application/zip",
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Last-Modified": "Thu, 02 Jan 2025 03:04:05 GMT",
        "x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(digest.digest()).decode()}",
    }
    asked = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
    if asked is None or headers.get("If-Range", tag) != tag:
        return Answer(200, content, common)
    start = int(asked[1])
    if start >= len(content):
        return Answer(416, b"", common)
    place = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return Answer(206, content[start:], common | place)


def _judged(content: bytes, truth: Path | None) -> tuple[float | None, str]:
    """The public score of a submission, or why it has none."""
    import pandas as pd

    from kit import decision, evaluation

    header = content.decode("utf-8", "replace").split("\n", 1)[0]
    if header.strip() != SUBMISSION_HEADER:
        return None, f"Submission must have the columns {SUBMISSION_HEADER}; found: {header[:200]}"
    if truth is None:
        return 0.0, ""
    answers, boxes = pd.read_csv(io.BytesIO(content)), pd.read_csv(truth)
    strange = sorted(set(answers["image_id"]) - set(boxes["image_id"]))
    if strange:
        return None, f"Submission contains an unknown image_id: {strange[0]}"
    images = sorted(set(boxes["image_id"]))
    return evaluation.score(boxes, decision.answers_to_detections(answers), images).map50, ""


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    """A submission as the list shows it: without a score while it is pending or where it failed."""
    shown = {name: one[name] for name in ("ref", "date", "description", "fileName", "totalBytes")}
    if one["polls"] > 0:
        return shown | {"status": "PENDING", "publicScore": "", "privateScore": ""}
    if one["reason"]:
        return shown | {"status": "ERROR", "publicScore": "", "privateScore": "", "errorDescription": one["reason"]}
    return shown | {"status": "COMPLETE", "publicScore": f"{one['score']:.5f}", "privateScore": ""}
