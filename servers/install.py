"""Install the servers that tests need into a cache folder: `python servers/install.py`.

Kafka and the registry come from Maven's repository, the fault proxy from Go's; versions stand in
pom.xml beside this file. Needs the standard library alone. Nothing happens where all is there;
exit 1, with the reason on stderr, where something could not be installed.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

_POM = Path(__file__).with_name("pom.xml")
_MAVEN = (
    # Strict: a file whose checksum differs from the repository's ends the installation.
    *("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", "--strict-checksums"),
    "-Dstyle.color=never",
    f"--file={_POM}",
)
# Of the plugin, `get` of 2.8 is the one that fetches a file without its parents, which the
# registry's are not in the repository.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_GET = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get"


def cache() -> Path:
    """The folder in which installations lie: K2_SERVERS, or k2-servers in the user's cache."""
    if named := os.environ.get("K2_SERVERS"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2-servers"


def versions() -> dict[str, str]:
    """Version by name: kafka, log4j, registry, toxiproxy."""
    space = "{http://maven.apache.org/POM/4.0.0}"
    properties = ElementTree.parse(_POM).getroot().find(f"{space}properties")
    assert properties is not None
    return {
        each.tag.removeprefix(space).removesuffix(".version"): (each.text or "").strip()
        for each in properties
    }


def place(name: str) -> Path:
    """Where this server is once it is installed; the folder is there whole or not at all."""
    return cache() / f"{name}-{versions()[name]}"


def _install_kafka(folder: Path) -> None:
    _run(*_MAVEN, _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}")


def _install_registry(folder: Path) -> None:
    archive = folder / "registry.tar.gz"
    artifact = f"io.apicurio:apicurio-registry-app:{versions()['registry']}:tar.gz:all"
    _run(*_MAVEN, _GET, "-Dtransitive=false", f"-Dartifact={artifact}", f"-Ddest={archive}")
    _run("tar", "-xzf", str(archive), "-C", str(folder))
    archive.unlink()


def _install_toxiproxy(folder: Path) -> None:
    module = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{versions()['toxiproxy']}"
    _run("go", "install", module, environment={"GOBIN": str(folder)})
    (folder / "server").rename(folder / "toxiproxy")


INSTALLERS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "kafka": (("java", "mvn"), _install_kafka),
    "registry": (("java", "mvn"), _install_registry),
    "toxiproxy": (("go",), _install_toxiproxy),
}


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=os.environ | (environment or {}))


def _install(name: str, tools: tuple[str, ...], installer: Callable[[Path], None]) -> str | None:
    """Why it could not be installed; None where it is there."""
    if place(name).is_dir():
        return None
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        return f"{name} is not installed: no {' and no '.join(absent)} on this machine"
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=cache()))
    sys.stderr.write(f"installing {name} {versions()[name]} into {place(name)}\n")
    try:
        installer(staging)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{name} is not installed: {error}"
    staging.chmod(0o755)
    staging.rename(place(name))
    return None


def main() -> int:
    """Install what is not there yet; 1 if something could not be."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / ".lock").open("w") as lock:
        # Two at once would download twice, and Maven's own folder is not made for two. The lock
        # ends with its process, so what lies in staging now was left by one that was killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache().glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
        failures = [
            failure
            for name, (tools, installer) in INSTALLERS.items()
            if (failure := _install(name, tools, installer))
        ]
        for left in cache().glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
    for failure in failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
