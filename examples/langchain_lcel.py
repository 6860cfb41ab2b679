"""A ragkit pipeline in a chain of LangChain's expression language."""

import sys

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnablePassthrough

from ragkit import BM25Retriever, ExtractivePruner
from ragkit.llms.named import chat_model
from ragkit.prompting import load_prompt

pipeline = (
    BM25Retriever.from_texts(["Tea and coffee both hold caffeine. Both are drunk hot.", "Water holds none."])
    >> ExtractivePruner()
)

# `python examples/langchain_lcel.py openai:gpt-4.1-mini` asks a real model
model = chat_model(sys.argv[1]) if sys.argv[1:] else FakeListChatModel(responses=["Tea and coffee do [1]."])

chain = (
    {"context": lambda question: pipeline.ground(question).text, "question": RunnablePassthrough()}
    | load_prompt("grounded_answer")
    | model
    | StrOutputParser()
)
for piece in chain.stream("What holds caffeine?"):
    print(piece, end="", flush=True)
print()

# GroundedAnswerer(pipeline=pipeline, llm=model) is the same chain, and also checks what the answer cites
