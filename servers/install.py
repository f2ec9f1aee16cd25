"""Install the servers that tests need into a cache folder: `python servers/install.py [NAME…]`.

Those named are installed besides: `sink`, which a benchmark is measured against. Kafka and the
registry come from Maven's repository, the fault proxy from Go's; versions stand in pom.xml beside
this file. Needs the standard library alone. Nothing happens where all is there; exit 1, with the
reason on stderr, where something could not be installed.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

_POM = Path(__file__).with_name("pom.xml")
_MAVEN = (
    # Strict: a file whose checksum differs from the repository's ends the installation.
    *("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", "--strict-checksums"),
    "-Dstyle.color=never",
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
    _copy(_POM, folder)


def _install_registry(folder: Path) -> None:
    archive = folder / "registry.tar.gz"
    artifact = f"io.apicurio:apicurio-registry-app:{versions()['registry']}:tar.gz:all"
    _run(
        *_MAVEN,
        f"--file={_POM}",
        _GET,
        "-Dtransitive=false",
        f"-Dartifact={artifact}",
        f"-Ddest={archive}",
    )
    _run("tar", "-xzf", str(archive), "-C", str(folder))
    archive.unlink()


def _install_toxiproxy(folder: Path) -> None:
    module = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{versions()['toxiproxy']}"
    _run("go", "install", module, environment={"GOBIN": str(folder)})
    (folder / "server").rename(folder / "toxiproxy")


def _install_sink(folder: Path) -> None:
    """Kafka Connect, Iceberg's sink for it, and what reads Avro through a registry."""
    poms = _POM.parent / "connect"
    _copy(poms / "worker.xml", folder / "worker")
    _copy(poms / "sink.xml", folder / "plugins" / "sink", f"-Dsink.version={versions()['sink']}")
    # Its own Kafka is older than the worker's.
    others = "-DexcludeGroupIds=org.apache.kafka,org.slf4j"
    _copy(poms / "converter.xml", folder / "plugins" / "converter", others)
    # Connect finds plugins by such a file, or by a scan of all classes that takes half a minute.
    with zipfile.ZipFile(folder / "plugins" / "converter" / "services.jar", "w") as jar:
        jar.writestr(
            "META-INF/services/org.apache.kafka.connect.storage.Converter",
            "io.apicurio.registry.utils.converter.AvroConverter\n",
        )


def _copy(pom: Path, folder: Path, *options: str) -> None:
    """Put what a POM depends on into the folder."""
    output = f"-DoutputDirectory={folder}"
    _run(*_MAVEN, f"--file={pom}", _COPY, "-DincludeScope=runtime", output, *options)


INSTALLERS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "kafka": (("java", "mvn"), _install_kafka),
    "registry": (("java", "mvn"), _install_registry),
    "toxiproxy": (("go",), _install_toxiproxy),
}
ON_REQUEST: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "sink": (("java", "mvn"), _install_sink),
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


def main(*names: str) -> int:
    """Install what is not there yet, with those named; 1 if something could not be."""
    wanted = INSTALLERS | {name: ON_REQUEST[name] for name in names}
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / ".lock").open("w") as lock:
        # Two at once would download twice, and Maven's own folder is not made for two. The lock
        # ends with its process, so what lies in staging now was left by one that was killed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache().glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
        failures = [
            failure
            for name, (tools, installer) in wanted.items()
            if (failure := _install(name, tools, installer))
        ]
        for left in cache().glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
    for failure in failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
