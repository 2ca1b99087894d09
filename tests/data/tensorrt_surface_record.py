"""Record the API of TensorRT's Python bindings from their wheels, without TensorRT's libraries.

    pip download --no-deps tensorrt_cu12_bindings==10.3.0 tensorrt_cu13_bindings==10.16.1.11 …
    python tests/data/tensorrt_surface_record.py *.whl > tests/data/tensorrt_surface.json

The libraries of TensorRT are not on PyPI. The bindings load against placeholders (needs gcc), which is enough to
ask which classes, members and signatures they have; nothing can be called. Run it with the Python the wheels are for.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLASSES = (
    "Builder", "BuilderFlag", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILogger", "INetworkDefinition", "IOptimizationProfile", "ITensor", "ITimingCache", "LayerInformationFormat",
    "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "ProfilingVerbosity",
    "Runtime", "TensorIOMode",
)  # fmt: skip
SHOW = """
import importlib, json, sys
trt = importlib.import_module("tensorrt_bindings.tensorrt")
def signature(value):
    lines = (getattr(value, "__doc__", None) or "").strip().splitlines()
    return lines[0].replace("tensorrt_bindings.tensorrt.", "") if lines and "(" in lines[0] else ""
show = {"module": sorted(n for n in dir(trt) if not n.startswith("__"))}
for name in sys.argv[1:]:
    found = getattr(trt, name, None)
    show[name] = {n: signature(getattr(found, n)) for n in dir(found) if not n.startswith("_")} if found else {}
print(json.dumps(show))
"""


def record(wheel: Path) -> dict[str, object]:
    """Return module names and, of each class in CLASSES, member names with their signatures."""
    with tempfile.TemporaryDirectory() as scratch:
        zipfile.ZipFile(wheel).extractall(scratch)
        binding = next(Path(scratch).rglob("tensorrt.so"))
        (binding.parent / "__init__.py").write_text("")
        needed = subprocess.run(["readelf", "-d", binding], capture_output=True, text=True, check=True).stdout
        missing = set(re.findall(r"\[(libnv[^\]]+)\]", needed))
        symbols = subprocess.run(
            ["nm", "-D", "--undefined-only", binding], capture_output=True, text=True, check=True
        ).stdout
        wanted = [
            name for name in re.findall(r" U (\w+)$", symbols, re.MULTILINE) if not name.startswith(("Py", "_Py"))
        ]
        stubs = Path(scratch, "stubs.c")
        stubs.write_text("".join(f"long {name}(void) {{ return 0; }}\n" for name in wanted))
        for library in missing:
            subprocess.run(
                ["gcc", "-w", "-shared", "-fPIC", stubs, "-o", f"{scratch}/{library}", f"-Wl,-soname,{library}"],
                check=True,
            )
        environment = {"LD_LIBRARY_PATH": scratch, "PYTHONPATH": scratch}
        shown = subprocess.run(
            [sys.executable, "-c", SHOW, *CLASSES], env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(shown.stdout)


if __name__ == "__main__":
    surfaces = {
        Path(wheel).name.split("-")[1]: {"wheel": Path(wheel).name, **record(Path(wheel))} for wheel in sys.argv[1:]
    }
    print(json.dumps(surfaces, indent=0, sort_keys=True))
