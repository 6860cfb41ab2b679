"""Chat with a folder in the browser: the answer on the left, what it was made from on the right.

    python examples/chatbot_web.py ~/notes
    python examples/chatbot_web.py ~/notes --model openai:gpt-4.1-mini

Needs NiceGUI: pip install 'ragkit[web]'. The page is served to this machine alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nicegui import ui

from ragkit import GroundedAnswerer, Pipeline, RagkitError
from ragkit.chains.context import GroundedPassage
from ragkit.chains.conversation import Conversation, Turn
from ragkit.chains.feedback import FeedbackLog
from ragkit.chains.folder import open_folder
from ragkit.llms.named import chat_model
from ragkit.terminal import place, printable

STYLE = """
.unit { display: inline; white-space: pre-wrap; overflow-wrap: anywhere }
.unit.heading { display: block; font-weight: 600 }
.kept { background: #ffe58a66 } .cited { background: #ffd54fcc; color: #222 } .dropped { color: #8a8a8a }
.said { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 100% }
.layout { display: grid; grid-template-columns: 3fr 2fr; gap: 1.5rem; width: 100% }
.pane { height: calc(100vh - 2rem); overflow-y: auto }
@media (max-width: 700px) { .layout { grid-template-columns: 1fr } .evidence { height: auto } }
"""


class ChatPage:
    """One browser tab with a conversation of its own. Text of documents is shown by labels, which know no markup."""

    def __init__(self, source: GroundedAnswerer | Pipeline, log: FeedbackLog) -> None:
        self.conversation, self.log = Conversation(source), log
        ui.add_css(STYLE)
        with ui.element("div").classes("layout"):
            with ui.column().classes("pane no-wrap"):
                self.messages = ui.scroll_area().classes("w-full grow")
                self.field = ui.input(placeholder="Ask your documents").props("outlined autofocus").classes("w-full")
                self.field.on("keydown.enter", self.ask)
            self.evidence = ui.column().classes("pane no-wrap evidence")

    async def ask(self) -> None:
        """Answer what stands in the field."""
        question = self.field.value.strip()
        if not question:
            return
        self.field.value = ""
        self.field.disable()
        with self.messages:
            ui.label(printable(question)).classes("said text-lg font-semibold question")
            reply = ui.label("…").classes("said answer")
        said = ""
        try:
            async for piece in self.conversation.astream(question):
                if isinstance(piece, Turn):
                    self.show(piece)
                else:
                    said += piece
                    reply.set_text(printable(said))
        except Exception as error:  # of a model's provider, above all; the next question may do better
            reply.set_text(printable(f"{said}\n{type(error).__name__}: {error}"))
        self.field.enable()

    def show(self, turn: Turn) -> None:
        """Sources and votes below the answer, and its passages beside it."""
        found, context = turn.answer, turn.answer.context
        # an answer that abstains cites nothing: show where to look then
        shown = found.citations or [passage.sentences[0].citation for passage in context.passages]
        notes = [f"[{c.n}] {place(c.source, c.line, c.page)}" for c in shown]
        notes += [f"not in the passages: {claim.text}" for claim in found.unsupported] + list(found.problems)
        notes += [f"{context.tokens_retrieved} tokens retrieved, {context.tokens_kept} kept"]
        with self.messages, ui.row().classes("items-center"):
            ui.label(printable("\n".join(dict.fromkeys(notes)))).classes("said text-sm sources")
            ui.button(icon="thumb_up", on_click=lambda: self.rate(turn, 1)).props("flat round aria-label=good")
            ui.button(icon="thumb_down", on_click=lambda: self.rate(turn, -1)).props("flat round aria-label=bad")
            ui.button("Explain", on_click=lambda: ui.download.content(context.to_html(), "explain.html")).props("flat")
        self.messages.scroll_to(percent=1)
        self.evidence.clear()
        with self.evidence:
            for passage in context.passages:
                show_passage(passage, turn)

    def rate(self, turn: Turn, rating: int) -> None:
        """Log a thumb."""
        self.log.rate(turn, rating)
        ui.notify("Noted.")


def show_passage(passage: GroundedPassage, turn: Turn) -> None:
    """The whole passage: cited sentences marked, others that were kept lightly so, and what was pruned in grey."""
    with ui.card().classes("w-full passage"):
        first = passage.sentences[0].citation
        ui.label(f"[{passage.n}] {place(passage.source, first.line, first.page)}").classes("said font-semibold")
        with ui.element("div"):
            kept = set(passage.sentences)
            for unit in sorted((*passage.sentences, *passage.dropped), key=lambda unit: unit.citation.start):
                state = "cited" if unit.citation in turn.answer.citations else "kept" if unit in kept else "dropped"
                ui.label(printable(unit.citation.text) + " ").classes(f"unit {unit.kind} {state}")


def main() -> int:
    """Index the folder, then serve the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", help="a file or folder: txt, md, rst, html, json, jsonl, pdf")
    parser.add_argument("--model", metavar="PROVIDER:NAME", help="a chat model of LangChain's; default: no model at all")
    parser.add_argument("--index", metavar="DIR", type=Path, help="where the index lives; default: in your cache directory")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options = parser.parse_args()
    try:
        model = chat_model(options.model) if options.model else None
        folder = open_folder(options.path, options.index)
        log = FeedbackLog(f"{folder.directory}.feedback.sqlite")
    except RagkitError as error:
        print(printable(f"chatbot_web: {error}"), file=sys.stderr)
        return 2
    source = GroundedAnswerer(pipeline=folder.pipeline, llm=model) if model else folder.pipeline
    title = f"{Path(options.path).resolve().name} - ragkit"
    ui.run(
        lambda: ChatPage(source, log), host="127.0.0.1", port=options.port, title=title, dark=None,
        reload=False, show=not options.no_browser, show_welcome_message=False,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
