"""A reranking strategy of your own: an algorithm that asks a language model which of two passages is better.

A strategy is a generator over the numbers of the candidates. It yields rounds of questions that do not depend on each other,
with the best ranking so far, and is sent the answers; batches, budgets, failures and costs are none of its business.
"""

import re

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from ragkit import PairwiseReranker
from ragkit.rerankers.strategies.base import Compare, Ranked, Round, Strategy


def knockout(n: int, k: int) -> Strategy:
    """Finds the best one in about log2(n) rounds of n - 1 calls altogether; the others stay in their order."""
    still_in = list(range(n))
    ranking = list(still_in)
    while len(still_in) > 1:
        pairs = list(zip(still_in[::2], still_in[1::2], strict=False))
        answers = yield Round([Compare(first, second) for first, second in pairs], ranking)
        # 1: the first is better; 0.5 or None: nothing is known, so the earlier candidate stays
        winners = [second if answer == 0 else first for (first, second), answer in zip(pairs, answers, strict=True)]
        still_in = winners + still_in[2 * len(pairs) :]
        ranking = [*still_in, *(candidate for candidate in range(n) if candidate not in still_in)]
    return Ranked(ranking)


class KnockoutReranker(PairwiseReranker):
    """Asks what `PairwiseReranker` asks, in another order."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `knockout`."""
        return knockout(n, k)


def prefer_longer(messages: list) -> AIMessage:
    """Stands in for a chat model: the passage with more words is better."""
    first, second = re.search(r"\[A\](.*)\[B\](.*)</passages>", messages[-1].content, re.DOTALL).groups()
    return AIMessage("A" if len(first.split()) >= len(second.split()) else "B")


documents = [Document(id=str(n), page_content="word " * words) for n, words in enumerate([3, 5, 2, 9, 4, 1, 7])]
reranker = KnockoutReranker(llm=RunnableLambda(prefer_longer), answers="text", top_k=1)
[outcome] = reranker.batch([{"documents": documents, "query": "Which is longest?"}])
print([document.id for document in outcome])
