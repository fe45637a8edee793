"""Small archives, and a server for downloads that cuts and corrupts."""

import hashlib
import re
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves bytes on 127.0.0.1, as told: in pieces, without ranges, changed, or something else."""

    def __init__(self):
        self.content, self.requests = b"", []
        self.at_once = None  # bytes of an answer before the connection is cut
        self.ranges, self.status, self.kind = True, 200, "application/octet-stream"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and outer.ranges else 0
                if first >= len(outer.content) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if first else outer.status)
                self.send_header("Content-Type", outer.kind)
                self.send_header("Content-Length", str(len(outer.content) - first))
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{len(outer.content) - 1}/{len(outer.content)}")
                self.end_headers()
                stop = None if outer.at_once is None else first + outer.at_once
                self.wfile.write(outer.content[first:stop])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def address(self, name):
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


def pack(folder, archive):
    """A tar or zip file of what lies in a folder, without a folder around it."""
    if archive.suffix == ".zip":
        shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
        return archive
    with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return archive


def digest(content):
    return hashlib.sha256(content).hexdigest()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
