"""Question to ranked documents: sparse, dense and hybrid retrievers, each a LangChain retriever."""
