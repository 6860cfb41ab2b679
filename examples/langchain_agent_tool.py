"""An agent that searches your documents with a ragkit retriever, and the documents that it found."""

import sys

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import create_retriever_tool

from ragkit import BM25Retriever
from ragkit.llms.named import chat_model


class ScriptedModel(GenericFakeChatModel):
    """Stands in for a model that calls tools: first it searches, then it answers."""

    def bind_tools(self, tools, **kwargs):
        """It knows what to say anyway."""
        return self


retriever = BM25Retriever.from_texts(
    ["The lease of the flat ends on 30 June 2027.", "The car was bought in 2021."],
    metadatas=[{"source": "lease.txt"}, {"source": "car.txt"}],
    k=1,
)
# with content_and_artifact the model sees text, and the tool message also carries the documents with scores and metadata
search = create_retriever_tool(
    retriever, "search_notes", "Searches the user's own notes.", response_format="content_and_artifact"
)
call = {"name": "search_notes", "args": {"query": "When does the lease end?"}, "id": "1"}
script = [AIMessage("", tool_calls=[call]), AIMessage("It ends on 30 June 2027.")]
model = chat_model(sys.argv[1]) if sys.argv[1:] else ScriptedModel(messages=iter(script))

result = create_agent(model, [search]).invoke({"messages": [("user", "When does my lease end?")]})

for message in result["messages"]:
    if isinstance(message, ToolMessage):
        for document in message.artifact:
            print(f"found in {document.metadata['source']}, score {document.metadata['relevance_score']:.2f}")
print(result["messages"][-1].text)
