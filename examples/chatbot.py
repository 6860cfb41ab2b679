"""Chat with a folder in the terminal: cited answers from your own files.

    python examples/chatbot.py ~/notes
    python examples/chatbot.py ~/notes --model openai:gpt-4.1-mini

Without --model nothing leaves this machine: answers are sentences of the files, verbatim. The first run indexes the folder, later
ones read what changed. Questions may also come from a pipe, one per line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ragkit import GroundedAnswerer, RagkitError
from ragkit.chains.conversation import Conversation, Turn
from ragkit.chains.feedback import FeedbackLog
from ragkit.chains.folder import open_folder
from ragkit.llms.named import chat_model
from ragkit.terminal import place, printable

with suppress(ImportError):
    import readline  # noqa: F401 - arrow keys at the prompt

HELP = """\
/sources        the passages behind the last answer
/explain        a page that shows how they were found
/good, /bad     say what you think of the last answer; /bad 2 is about passage [2] alone
/reset          forget the conversation
/quit           leave (or Ctrl-D)"""


def main() -> int:
    """Index the folder, then answer questions until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", help="a file or folder: txt, md, rst, html, json, jsonl, pdf")
    parser.add_argument("--model", metavar="PROVIDER:NAME", help="a chat model of LangChain's; default: no model at all")
    parser.add_argument("--index", metavar="DIR", type=Path, help="where the index lives; default: in your cache directory")
    parser.add_argument(
        "--feedback", metavar="FILE", type=Path, help="where /good and /bad are logged; default: beside the index"
    )
    options = parser.parse_args()
    try:
        model = chat_model(options.model) if options.model else None
        folder = open_folder(options.path, options.index, progress if sys.stderr.isatty() else None)
        for skipped in folder.report.skipped:
            print(printable(f"skipped {skipped.path}: {skipped.reason}"), file=sys.stderr)
        print(f"{folder.report.passages} passages indexed. /help tells what else you can do.", file=sys.stderr)
        log = FeedbackLog(options.feedback or f"{folder.directory}.feedback.sqlite")
        pipeline = folder.pipeline
        chat(Conversation(GroundedAnswerer(pipeline=pipeline, llm=model) if model else pipeline), log)
    except RagkitError as error:
        print(printable(f"chatbot: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def chat(conversation: Conversation, log: FeedbackLog) -> None:
    """Read lines, and answer or obey them."""
    for line in lines():
        command, *arguments = line.split()
        last = conversation.turns[-1] if conversation.turns else None
        try:
            if command == "/quit":
                return
            if command == "/reset":
                conversation.reset()
            elif command in ("/sources", "/explain", "/good", "/bad") and last is None:
                print("Ask something first.")
            elif command == "/sources":
                show_passages(last)
            elif command == "/explain":
                explain(last)
            elif command in ("/good", "/bad"):
                log.rate(last, 1 if command == "/good" else -1, [int(n) for n in arguments] or None)
                print("Noted.")
            elif command.startswith("/"):
                print(HELP)
            else:
                answer(conversation, line)
        except KeyboardInterrupt:
            print("\n(stopped)")
        except Exception as error:  # of a model's provider, above all; the next question may do better
            print(printable(f"{type(error).__name__}: {error}"), file=sys.stderr)


def lines() -> Iterator[str]:
    """What the user types, or what comes through the pipe, without blank lines."""
    sys.stdin.reconfigure(errors="replace")
    try:
        while True:
            line = input("\nyou> ") if sys.stdin.isatty() else next(sys.stdin)
            if line.strip():
                yield line.strip()
    except (EOFError, StopIteration):
        return


def answer(conversation: Conversation, question: str) -> None:
    """The answer as it comes, then where it comes from."""
    for piece in conversation.stream(question):
        if isinstance(piece, Turn):
            show_sources(piece)
        else:
            print(printable(piece), end="", flush=True)


def show_sources(turn: Turn) -> None:
    """File and line of each citation, what could not be verified, and the tokens saved."""
    found, context = turn.answer, turn.answer.context
    print("\n")
    shown = found.citations or [passage.sentences[0].citation for passage in context.passages]  # if it abstains
    for where in dict.fromkeys(f"  [{c.n}] {place(c.source, c.line, c.page)}" for c in shown):
        print(where)
    for note in (*(f"not in the passages: {claim.text}" for claim in found.unsupported), *found.problems):
        print(printable(f"  {note}"))
    saved = 1 - context.tokens_kept / context.tokens_retrieved if context.tokens_retrieved else 0
    print(f"  {context.tokens_retrieved} tokens retrieved, {context.tokens_kept} kept ({saved:.0%} saved)", flush=True)


def show_passages(turn: Turn) -> None:
    """What the answer was made from."""
    for passage in turn.answer.context.passages:
        first = passage.sentences[0].citation
        print(f"[{passage.n}] {place(passage.source, first.line, first.page)}\n{printable(passage.text)}\n")


def explain(turn: Turn) -> None:
    """The way of the question as a page, in the browser if there is one."""
    with tempfile.NamedTemporaryFile("w", prefix="ragkit-", suffix=".html", encoding="utf-8", delete=False) as page:
        page.write(turn.answer.context.to_html())
    if not (sys.stdin.isatty() and webbrowser.open(Path(page.name).as_uri())):
        print(page.name)


def progress(done: int, total: int) -> None:
    """One line that counts the files."""
    print(f"\rindexing: {done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
