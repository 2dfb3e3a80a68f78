"""The guide's pages as programs: what they show is done as a reader would do it, and has to go as they say.

A page is played in a folder of its own, from top to bottom:

- A block below ``<!-- file: NAME -->`` is saved under that name.
- A ``python`` block without a name is run as a program behind a passed TCP socket, or those of
  ``<!-- passed: chat=tcp admin=unix -->``. It may await, and knows what the page's ``<!-- invisible-code: python`` told
  before. As soon as it is ready, it is told to stop. It has to end well.
- A ``console`` block is typed into a shell that lives as long as the page. What it shows has to appear, line by line;
  ``...`` stands for anything. After ``&`` the next line is typed when all of that has appeared.
- A block below ``<!-- not run: REASON -->`` is left out.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from activation.testing import activated
from tests.commands import LIMIT, SCRIPTS, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sybil import Example

COMMENT = re.compile(r"<!-- (file|passed|not run): (.+) -->\n *\Z")
PORT = "2000"
"""What pages call their port; it is played with one that is free."""

# Runs a fragment, which may await. The arguments: the folder, what comes before the fragment, and the fragment.
RUN = """
import ast, inspect, logging, os, socket, ssl, sys
from functools import partial
import activation, trio
folder, before, fragment = sys.argv[1:]
os.chdir(folder)
exec(compile(before, "<before>", "exec"))
code = compile(fragment, "<fragment>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def main():
    await eval(code, globals())
trio.run(main) if code.co_flags & inspect.CO_COROUTINE else exec(code)
"""


class Prompt(NamedTuple):
    """A line that is typed, and what has to appear then."""

    command: str
    shown: list[str]


def prompts(block: str, prompt: str) -> list[Prompt]:
    """The lines of a console block that begin with the prompt, each with what the page shows after it."""
    found: list[Prompt] = []
    for line in block.splitlines():
        if line.startswith(prompt):
            found.append(Prompt(line.removeprefix(prompt), []))
        elif found and found[-1].command.endswith("\\"):
            found[-1] = Prompt(f"{found[-1].command}\n{line}", [])
        elif line:
            assert found, f"{line!r} does not begin with {prompt!r}; what cannot be run says why"
            found[-1].shown.append(line)
    return found


class Shell:
    """A bash that is typed into, in a terminal's place."""

    def __init__(self, process: subprocess.Popen[bytes], limit: float) -> None:
        """Type into ``process``, and wait so many seconds for what should appear."""
        self._process = process
        self._limit = limit
        self._typed = 0
        self._output = b""

    def type(self, prompt: Prompt) -> None:
        """Type it, and wait until it has ended, or is in the background, and has shown what it should."""
        assert self._process.stdin
        self._typed += 1
        end = f"end of {self._typed}: "
        # The command must not read what is typed after it.
        quoted = prompt.command.replace("'", "'\\''")
        self._process.stdin.write(f"eval '{quoted}' </dev/null\necho '{end}'$?\n".encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + self._limit
        while not (end in self.output and appeared(prompt.shown, self.output)):
            left = deadline - time.monotonic()
            assert left > 0, f"$ {prompt.command}\nshould show\n{prompt.shown}\nand shows\n{self.output}"
            assert self._process.stdout
            if select.select([self._process.stdout], [], [], left)[0]:
                more = os.read(self._process.stdout.fileno(), 65536)
                assert more, f"$ {prompt.command}\nended the shell:\n{self.output}"
                self._output += more
        status = self.output.partition(end)[2].split()[0]
        assert status == "0" or prompt.shown, f"$ {prompt.command}\nends with {status}:\n{self.output}"
        self._output = b""

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace")

    def close(self) -> None:
        """End what is in the background, and the shell."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"kill $(jobs -p) 2>/dev/null; wait; exit\n")
        self._process.stdin.close()
        try:
            self._process.wait(LIMIT)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def appeared(shown: list[str], output: str) -> bool:
    """Whether these lines are among those of the output, in this order."""
    patterns = [".*".join(map(re.escape, line.split("..."))) for line in shown]
    return re.search("".join(rf"^{pattern}\s*$[\s\S]*" for pattern in patterns), output, re.MULTILINE) is not None


class Page:
    """A page that is played."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        *,
        prompt: str | None = "$ ",
        bash: Callable[[], subprocess.Popen[bytes]] | None = None,
        replace: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        limit: float = LIMIT,
    ) -> None:
        """Prepare it.

        Args:
            path: the page.
            folder: where it is played.
            prompt: which lines of console blocks are typed; None for a page whose console blocks are left out.
            bash: starts what they are typed into; by default it is in the folder, with the commands on its PATH.
            replace: what is otherwise where it is played.
            env: more of the shell's environment.
            limit: how many seconds to wait for what a command should show.
        """
        self.folder = folder
        self.prompt = prompt
        self.replace = {PORT: str(free_port()), **(replace or {})}
        self.env = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **(env or {})}
        self.bash = bash or self._bash
        self.limit = limit
        self.files: dict[str, str] = {}
        self._before = ""
        self._shell: Shell | None = None
        kinds = {"python": self._python, "console": self._console, "ini": self._file}
        parsers = [CodeBlockParser(kind, self._unless_left_out(evaluate)) for kind, evaluate in kinds.items()]
        self._document = Sybil(parsers).parse(path)

    def play(self) -> int:
        """Do all that it shows; return how many blocks that were."""
        count = 0
        with ExitStack() as stack:
            stack.callback(self._close_shell)
            for example in self._document.examples():
                example.evaluate()
                count += 1
        return count

    def _close_shell(self) -> None:
        if self._shell:
            self._shell.close()

    def _unless_left_out(self, evaluate: Callable[[Example], None]) -> Callable[[Example], None]:
        return lambda example: None if "not run" in self._comments(example) else evaluate(example)

    def _text(self, example: Example) -> str:
        text = str(example.parsed)
        for old, new in self.replace.items():
            text = text.replace(old, new)
        return text

    def _comments(self, example: Example) -> dict[str, str]:
        found = {}
        before = example.document.text[: example.start]
        while match := COMMENT.search(before):
            found[match[1]] = match[2]
            before = before[: match.start()]
        return found

    def _file(self, example: Example) -> None:
        if name := self._comments(example).get("file"):
            self.files[name] = self._text(example)
            if not name.startswith("/"):
                (self.folder / name).write_text(self.files[name])

    def _python(self, example: Example) -> None:
        comments, text = self._comments(example), self._text(example)
        compile("async def all():\n" + re.sub("^", " ", text, flags=re.MULTILINE), str(self.folder), "exec")
        if "file" in comments:
            self._file(example)
        elif example.document.text[example.start :].startswith("<!--"):
            self._before += text
        else:
            passed = [item.split("=") for item in comments.get("passed", "tcp=tcp").split()]
            trio.run(self._run, text, passed)

    async def _run(self, fragment: str, passed: Any) -> None:
        command = [sys.executable, "-c", RUN, str(self.folder), self._before, fragment]
        async with activated(command, passed, env={"PYTHONPATH": str(self.folder), "PATH": self.env["PATH"]}) as daemon:
            try:
                await daemon.ready()
            except AssertionError:
                if daemon.exited != 0:  # it may end by itself
                    raise

    def _console(self, example: Example) -> None:
        if self.prompt is None:
            return
        for prompt in prompts(self._text(example), self.prompt):
            if self._shell is None:
                self._shell = Shell(self.bash(), self.limit)
            self._shell.type(prompt)

    def _bash(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["bash", "--norc", "-m"], cwd=self.folder, env=self.env, **PIPES)  # type: ignore[call-overload,no-any-return]


PIPES = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
    "bufsize": 0,
    "start_new_session": True,
}
