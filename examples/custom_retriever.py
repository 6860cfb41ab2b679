"""Any LangChain retriever can be the first stage of a pipeline: this one finds documents by their date."""

from datetime import date

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ragkit import ExtractivePruner, Pipeline

DIARY = [
    Document(id="mon", page_content="The boiler broke. We called the plumber.", metadata={"date": "2026-03-02"}),
    Document(id="tue", page_content="The plumber repaired the boiler. It cost 180 euros.", metadata={"date": "2026-03-03"}),
    Document(id="sun", page_content="We went sailing. The boiler was not missed.", metadata={"date": "2026-07-05"}),
]


class LatestRetriever(BaseRetriever):
    """The latest documents before a day, whatever the question is."""

    documents: list[Document]
    before: date
    k: int = 2

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        known = [document for document in self.documents if date.fromisoformat(document.metadata["date"]) < self.before]
        return sorted(known, key=lambda document: document.metadata["date"], reverse=True)[: self.k]


latest = LatestRetriever(documents=DIARY, before=date(2026, 4, 1))
pipeline = Pipeline(retriever=latest, stages=[ExtractivePruner()])

context = pipeline.ground("What did the repair cost?")
print(context.text)
print([stage.stage for stage in context.trace])
