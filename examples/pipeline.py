"""The pipeline, stage by stage: retrieve, rerank, prune, ground."""

from ragkit import BM25Retriever, ProvencePruner, ProvenceReranker

retriever = BM25Retriever.from_texts(
    [
        "Bananas ripen after harvest. They give off ethene, a gas. Green ones are sold to shops far away.",
        "Ethene ripens fruit. It is a plant hormone. Ripening rooms are filled with it.",
        "Cars have four wheels. Trains run on rails. A banana boat has neither.",
    ],
    ids=["bananas", "ethene", "vehicles"],
    k=3,
)
# `>>` joins stages; what comes out is a LangChain retriever again
pipeline = retriever >> ProvenceReranker(top_k=2) >> ProvencePruner(threshold=0.3)

context = pipeline.ground("Which gas do bananas give off?", max_tokens=200)

print(context.text)
print()
for citation in context.citations:  # offsets into the source, so that every sentence can be found again
    print(f"[{citation.n}] {citation.source}, characters {citation.start} to {citation.end}: {citation.text}")
for stage in context.trace:
    print(f"{stage.stage}: {stage.entered} -> {stage.left} documents")
print(f"{context.tokens_retrieved} tokens retrieved, {context.tokens_kept} kept")
