"""The process that reads the inputs. A crash, too much time or too much memory only ends this process."""

import faulthandler
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from fuzz import registry
from fuzz.judging import FORBIDDEN, Verdict, judge
from fuzz.kinds import Input, Kind, digest

MEMORY = 2**30  # bytes above what the process has before it reads an input
# The process is ended after this many times the seconds that reading may take: counted in processor time, and by the
# clock, for a process that only waits, on a machine that may be busy with something else.
PATIENCE, PATIENCE_BY_THE_CLOCK = 2, 24


def main(job: dict[str, Any]) -> None:
    """Reads `count` inputs of each kind, from number `start` on, and writes a line of JSON before and after each."""
    folder = Path(job["folder"])
    with open(folder / "answers", "w", encoding="utf-8", buffering=1) as answers:
        for place, (name, start) in enumerate(job["kinds"]):
            (folder / str(place)).mkdir()
            kind = registry.find(job["group"], name)(folder / str(place))
            kind.file.write_bytes(kind.whole)
            whole = digest(kind.read(kind.file))
            inputs = kind.inputs(job["count"], job["seed"])
            for number in range(start, len(inputs)):
                about = {"kind": name, "number": number, "file": str(kind.file)}
                print(json.dumps(about), file=answers)
                verdict = _judged(kind, inputs[number], whole, job["seconds"])
                if verdict.verdict == FORBIDDEN:
                    about["file"] = str(folder / f"forbidden-{place}-{number}")
                    Path(about["file"]).write_bytes(inputs[number].content)
                print(json.dumps(about | verdict._asdict()), file=answers)


def _judged(kind: Kind, tried: Input, whole: str, seconds: float) -> Verdict:
    _limit_memory()
    _limit_time(PATIENCE * seconds)
    faulthandler.dump_traceback_later(PATIENCE_BY_THE_CLOCK * seconds, exit=True)
    try:
        return judge(kind, tried, whole, seconds)
    finally:
        faulthandler.cancel_dump_traceback_later()
        _limit_time(0)


def _limit_time(seconds: float) -> None:
    """Ends the process with a traceback after `seconds` of processor time; 0 is no limit."""
    if hasattr(signal, "setitimer"):  # not on Windows
        faulthandler.register(signal.SIGPROF, chain=True)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    """Limits the process to `MEMORY` more than it has now; only on Linux, which reports this."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    import resource

    size = int(re.search(r"VmSize:\s*(\d+) kB", status.read_text())[1]) * 1024
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
