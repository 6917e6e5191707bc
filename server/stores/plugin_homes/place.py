"""Where plugins are to live, as settings name it."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from server.stores.blobs.place import SCHEME as S3
from server.stores.blobs.place import Bucket, parse_bucket
from server.stores.interfaces import PluginHome
from server.stores.plugin_homes.folder import FolderHome

if TYPE_CHECKING:
    from server.stores.plugin_homes.registry import Repository

OCI = "oci://"
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*")


class Registry:
    """An OCI registry, as a setting names it: `oci://HOST/REPOSITORY`."""

    def __init__(self, host: str, name: str, *, insecure: bool, login_file: Path | None) -> None:
        self.host = host
        self.name = name
        self.insecure = insecure
        self.login_file = login_file

    def repository(self) -> "Repository":
        """Return it with its login.

        Raises:
            OSError: the file cannot be read, or has no `USER:PASSWORD`.
        """
        from server.stores.plugin_homes.registry import Repository  # late: slow to import

        user = password = ""
        if self.login_file is not None:
            user, colon, password = self.login_file.read_text("utf-8").strip().partition(":")
            if not colon:
                raise OSError(f"{self.login_file}: should be USER:PASSWORD")
        return Repository(self.host, self.name, self.insecure, user, password)

    def __str__(self) -> str:
        return f"{OCI}{self.host}/{self.name}"


def parse_registry(text: str) -> Registry:
    """Return what `oci://HOST[:PORT]/REPOSITORY?login=FILE&insecure=1` names.

    Raises:
        ValueError: it is malformed, or oras is not installed.
    """
    url = urlsplit(text)
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {"login", "insecure"}):
        raise ValueError(f"knows login and insecure, and not {unknown}")
    name = url.path.strip("/")
    if not _HOST.fullmatch(url.netloc) or not _NAME.fullmatch(name) or url.fragment:
        raise ValueError(f"should be {OCI}HOST[:PORT]/REPOSITORY, in lower case")
    if find_spec("oras") is None:
        raise ValueError("needs oras: install Muster with its extra oci")
    login = Path(options["login"]).expanduser() if options.get("login") else None
    insecure = options.get("insecure", "") in ("1", "true")
    return Registry(url.netloc, name, insecure=insecure, login_file=login)


def parse_home(text: str) -> Path | Bucket | Registry:
    """Return which home a setting names: a folder, `s3://…` or `oci://…`.

    Raises:
        ValueError: it is malformed.
    """
    if text.startswith(S3):
        return parse_bucket(text)
    if text.startswith(OCI):
        return parse_registry(text)
    return Path(text).expanduser()


def open_home(place: Path | Bucket | Registry) -> PluginHome:
    """Return a home; nothing is asked of it yet.

    Raises:
        OSError: a login cannot be read.
    """
    if isinstance(place, Path):
        return FolderHome(place)
    if isinstance(place, Bucket):
        from server.stores.plugin_homes.s3 import S3Home  # late: slow to import, and an extra

        return S3Home(place)
    from server.stores.plugin_homes.registry import RegistryHome  # late, as above

    return RegistryHome(place.repository())
