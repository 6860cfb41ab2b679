"""Questions made from a corpus: which passages, which sentences, which words, and what is kept."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel

from ragkit import HybridRetriever, InputError, RagkitError, Store, bm25_and_dense
from ragkit.documents.model import Unit
from ragkit.encoders.lexical import Analyzer
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.sentences import load_sentences
from ragkit.evaluation.synthetic.asking import Asked, Keywords, Target, Written
from ragkit.evaluation.synthetic.folder import check_free, write_dataset
from ragkit.evaluation.synthetic.keywords import keyword_question
from ragkit.evaluation.synthetic.make import Question, make_questions, salient_sentence
from ragkit.evaluation.synthetic.pieces import Piece, Splitter
from ragkit.evaluation.synthetic.reading import question_of
from ragkit.evaluation.synthetic.salience import salience
from ragkit.evaluation.synthetic.sampling import spread
from ragkit.llms.base import Completion
from ragkit.llms.cached import Cached
from ragkit.store.passages import Passage, passages
from ragkit.store.rarity import Rarity

TEXTS = {
    "boats": "# Boats\n\nA brig is a sailing vessel with two square-rigged masts. Brigs were fast and turned easily.",
    "bread": "Sourdough bread rises with wild yeast and lactic acid bacteria. It keeps for longer than other bread does.",
    "bread again": "Rye flour holds little gluten, so loaves made of rye stay flat and dense after baking in an oven.",
    "short": "See below.",
    "stars": "The brightest star in the night sky is Sirius, in the constellation Canis Major. It is a binary star system.",
}


def store_of(texts: dict[str, str], encoder: Any, language: str = "english") -> Store:
    store = Store.memory(bm25_and_dense(encoder, language))
    store.upsert([Document(id=id_, page_content=text, metadata={"source": id_.split()[0]}) for id_, text in texts.items()])
    return store


@pytest.fixture
def store(encoder: Any) -> Store:
    return store_of(TEXTS, encoder)


# -- sampling ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(0, 5))
def test_every_beginning_is_spread_over_the_groups(groups: list[str], seed: int) -> None:
    order = spread(groups, seed)
    assert sorted(order) == list(range(len(groups)))
    assert order == spread(groups, seed)
    sizes = Counter(groups)
    for n in range(len(groups) + 1):
        taken = Counter(groups[at] for at in order[:n])
        # a group that still has items is at most one behind any other
        for group, size in sizes.items():
            if taken[group] < size:
                assert all(taken[group] >= other - 1 for other in taken.values())


def test_another_seed_gives_another_sample() -> None:
    assert len({tuple(spread(list(range(20)), seed)) for seed in range(10)}) == 10


# -- rarity and salience ----------------------------------------------------------------------------------------------


def test_rarity_is_lucenes_idf_over_what_is_there_now(store: Store) -> None:
    store.delete(["stars"])
    left = [text for id_, text in TEXTS.items() if id_ != "stars"]
    rarity, analyzer = Rarity(store.snapshot), Analyzer()
    terms = ["bread", "rye", "star", "nowhere", "bread"]
    found = rarity.of_terms(terms)
    assert list(found) == ["bread", "rye", "star", "nowhere"]
    for term, value in found.items():
        df = sum(term in analyzer(text) for text in left)
        assert value == pytest.approx(math.log(1 + (len(left) - df + 0.5) / (df + 0.5)))
    assert rarity.of_text("Breads and bread!") == {"bread": found["bread"]}


def test_rarity_needs_a_lexical_index(encoder: Any) -> None:
    store = Store.memory({"dense": bm25_and_dense(encoder)["dense"]})
    with pytest.raises(InputError, match="no BM25 index"):
        Rarity(store.snapshot)


words_of = st.lists(st.sampled_from("abcdef"), max_size=8)


@given(st.lists(words_of, min_size=1, max_size=5), st.lists(st.floats(0.1, 5), min_size=6, max_size=6))
def test_salience_is_the_cosine_with_the_centroid(sentences: list[list[str]], idf: list[float]) -> None:
    matrix = np.array([[words.count(term) * weight for term, weight in zip("abcdef", idf, strict=True)] for words in sentences])
    centre = matrix.sum(axis=0)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(centre)
    expected = np.divide(matrix @ centre, norms, out=np.zeros(len(sentences)), where=norms > 0)
    np.testing.assert_allclose(salience(sentences, dict(zip("abcdef", idf, strict=True))), expected, atol=1e-12)


def test_headings_code_and_fragments_are_never_asked_about(encoder: Any, store: Store) -> None:
    rarity = Rarity(store.snapshot)
    by_id = {passage.id: passage for passage in passages(store)}
    at = salient_sentence(by_id["boats"], rarity)
    assert at is not None
    assert by_id["boats"].unit(at).startswith("A brig is")
    assert salient_sentence(by_id["short"], rarity) is None
    assert "".join(by_id["boats"].sentences) == TEXTS["boats"]


# -- keywords ---------------------------------------------------------------------------------------------------------


def word(text: str, weight: float) -> Piece:
    return Piece(text, weight, attached=False, character=False)


def test_the_best_and_the_worst_words_go() -> None:
    pieces = [word("the", 0), word("Paris", 9), word("capital", 4), word("of", 0), word("large", 3), word("country", 2)]
    pieces += [word("very", 0.1), word("Capital", 4), word("river", 5), word("bank", 1)]
    # content: Paris 9, river 5, capital 4, large 3, country 2, bank 1, very .1: two of seven go above, two below
    assert keyword_question(pieces) == "capital large country"
    assert keyword_question(pieces[:4]) is None
    assert keyword_question([]) is None


@given(
    st.lists(st.tuples(st.sampled_from(["ash", "oak", "elm", "fir", "yew", "box", "may", "bay"]), st.floats(0, 9)), max_size=30)
)
def test_a_keyword_question_is_a_subsequence_without_repeats(pairs: list[tuple[str, float]]) -> None:
    question = keyword_question([word(*pair) for pair in pairs])
    if question is None:
        return
    left = iter(text for text, _ in pairs)
    chosen = question.split()
    assert all(one in left for one in chosen)
    assert len(set(chosen)) == len(chosen)
    assert 3 <= len(chosen) <= 8


def test_words_weigh_as_much_as_their_rarest_term_and_links_nothing() -> None:
    split = Splitter(Analyzer(), lambda terms: {term: float(len(term)) for term in terms})
    found = split('The "well-known" cats (see [a](b.md), https://c.org/docs).')
    assert [(piece.text, piece.weight) for piece in found] == [
        ("The", 0), ("well-known", 5), ("cats", 3), ("see", 3), ("a](b.md", 0), ("https://c.org/docs", 0)
    ]  # fmt: skip
    assert not any(piece.attached or piece.character for piece in found)


def test_unspaced_scripts_are_cut_into_characters_weighed_by_their_bigrams() -> None:
    idf = {"東京": 4.0, "京の": 1.0, "の塔": 1.0}
    split = Splitter(Analyzer("japanese"), lambda terms: {term: idf.get(term, 0.5) for term in terms})
    found = split("東京の塔、2024年")
    assert [(piece.text, piece.weight, piece.attached) for piece in found] == [
        ("東", 4.0, False), ("京", 2.5, True), ("の", 1.0, True), ("塔", 1.0, True), ("2024", 0.5, False), ("年", 0.5, True)
    ]  # fmt: skip
    assert [piece.character for piece in found] == [True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("japanese", "東京スカイツリーは二〇一二年に墨田区で開業した高さ六百三十四メートルの電波塔である。"),
        ("chinese", "故宫博物院建立于一九二五年，位于北京市中心，是中国最大的古代文化艺术博物馆。"),
        ("thai", "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทย"),
        ("korean", "서울특별시는 대한민국의 수도이자 가장 큰 도시로 한강을 끼고 발달하였다."),
        ("hindi", "दिल्ली भारत की राजधानी है और यमुना नदी के किनारे बसा हुआ एक बहुत पुराना शहर है।"),
        ("german", "Die Elbe entspringt im Riesengebirge und mündet nach über tausend Kilometern bei Cuxhaven in die Nordsee."),
    ],
)
def test_every_language_gives_questions_that_find_their_passage(language: str, text: str, encoder: Any) -> None:
    store = store_of({"it": text, "other": "Something else altogether, written in English words."}, encoder, language)
    rarity = Rarity(store.snapshot)
    [asked] = Keywords(Splitter(rarity.analyzer, rarity.of_terms))([Target(text, "", text)])
    assert asked.question is not None
    assert 0 < len(asked.question) < len(text)
    # the least of a question: it is made of the text's own terms
    assert set(rarity.analyzer(asked.question)) & set(rarity.analyzer(text))
    assert HybridRetriever(store=store).invoke(asked.question)[0].id == "it"


# -- a language model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("What is x?", "What is x?"),
        ("Question: What is x?", "What is x?"),
        ('Sure! Here is one:\n\n1. "What is x?"\n2. Why?', "What is x?"),
        ("<think>What about y?</think>\n**Question:** What is x?", "What is x?"),
        ("```\nWhat is x?\n```", "What is x?"),
        ("東京タワーはどこですか？", "東京タワーはどこですか？"),
        ("ญี่ปุ่นอยู่ที่ไหน", "ญี่ปุ่นอยู่ที่ไหน"),
        ("None", None),
        ("N/A.", None),
        ("", None),
        ("?!", None),
        ("<think>What is x?", None),
        ("I cannot do that.\nAsk me something else.", None),
        ("x " * 400 + "?", None),
    ],
)
def test_a_question_is_found_in_what_a_model_says(answer: str, question: str | None) -> None:
    assert question_of(answer) == question


@given(st.text())
def test_no_answer_breaks_the_reading(answer: str) -> None:
    question = question_of(answer)
    assert question is None or (question.strip() and "\n" not in question)


class Scripted:
    """Answers with what `answer` makes of the prompt."""

    identity = "scripted"

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[str]()

    def generate(self, prompts: Sequence[Any], configs: Any = None, until: float | None = None) -> list[Any]:
        texts = [str(prompt[-1].content) for prompt in prompts]
        self.asked += texts
        return [one if isinstance(one, Exception) else Completion(one) for one in map(self.answer, texts)]

    async def agenerate(self, prompts: Sequence[Any], configs: Any = None, until: float | None = None) -> list[Any]:
        return self.generate(prompts, configs, until)


def test_the_model_sees_the_passage_inert_and_fails_for_its_target_alone() -> None:
    model = Scripted(lambda prompt: ValueError("no\nway") if "bad" in prompt else "Who?" if "fine" in prompt else "None")
    targets = [Target("A fine </passage> one. [2] More.", "Top", "A fine"), Target("bad", "", "bad"), Target("dull", "", "dull")]
    asked = Written(model)(targets)
    assert asked[0] == Asked("Who?")
    assert asked[1] == Asked(None, "ValueError: no way", failed=True)
    assert asked[2].question is None
    assert "None" in asked[2].problem
    assert model.asked[0].count("</passage>") == 1
    assert "Top\nA fine" in model.asked[0]
    assert "[2]" not in model.asked[0]


def test_answers_are_asked_for_once(tmp_path: Path) -> None:
    model = FakeListChatModel(responses=["Who?", "What?"])
    ask = Written(Cached(model, tmp_path / "answers.sqlite", "fake"))
    first = ask([Target("a b", "", "a b")])
    assert ask([Target("a b", "", "a b")]) == first


def test_a_model_or_prompt_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    prompt = tmp_path / "p.yaml"
    prompt.write_text("variables: [passage]\nuser: '{passage}'\n")
    with pytest.raises(InputError, match="passage and sentence"):
        Written(FakeListChatModel(responses=["x"]), prompt)
    with pytest.raises(InputError, match="llm"):
        Written(7)


# -- all of it --------------------------------------------------------------------------------------------------------


def everything(store: Store) -> Any:
    ids = [passage.id for passage in passages(store)]
    return lambda texts: [ids] * len(texts)


def test_a_question_stays_if_it_finds_its_passage_or_a_twin(encoder: Any) -> None:
    store = store_of(TEXTS | {"twin": TEXTS["boats"]}, encoder)
    known = passages(store)
    rarity = Rarity(store.snapshot)

    def ask(targets: Sequence[Target]) -> list[Asked]:
        return [Asked(None, "dull") if "Rye" in t.passage else Asked(f"about {t.sentence[:12]}?") for t in targets]

    questions, report = make_questions(known, rarity, ask, lambda texts: [["twin", "stars"]] * len(texts), 10)
    assert {question.passage.id for question in questions} <= {"boats", "twin", "stars"}
    assert [set(q.relevant) for q in questions if q.passage.id != "stars"] == [{"boats", "twin"}]
    assert (report.tried, report.no_sentence, report.no_question) == (6, 1, 1)
    # bread is not found, and the twin's question is there already
    assert (report.not_found, report.repeated, report.kept, report.failed) == (1, 1, 2, 0)
    assert report.problems == ["dull"]
    counts = (report.no_sentence, report.no_question, report.failed, report.repeated, report.not_found, report.kept)
    assert sum(counts) == report.tried
    for question in questions:
        assert question.passage.unit(question.gold).startswith(question.text.removeprefix("about ").rstrip("?"))


def test_no_more_are_made_than_wanted_and_the_same_again(store: Store) -> None:
    known, rarity = passages(store), Rarity(store.snapshot)
    ask = Keywords(Splitter(rarity.analyzer, rarity.of_terms))
    questions, report = make_questions(known, rarity, ask, everything(store), 2)
    assert len(questions) == report.kept == 2
    again, _ = make_questions(known, Rarity(store.snapshot), ask, everything(store), 2)
    assert again == questions
    with pytest.raises(InputError, match="n: must be"):
        make_questions(known, rarity, ask, everything(store), 0)


def test_a_model_that_always_fails_is_an_error(store: Store) -> None:
    def ask(targets: Sequence[Target]) -> list[Asked]:
        return [Asked(None, "ValueError: no key", failed=True) for _ in targets]

    known = passages(store)
    with pytest.raises(RagkitError, match="no key"):
        make_questions(known, Rarity(store.snapshot), ask, everything(store), 3)


def test_the_folder_is_read_back(store: Store, tmp_path: Path) -> None:
    known, rarity = passages(store), Rarity(store.snapshot)
    ask = Keywords(Splitter(rarity.analyzer, rarity.of_terms))
    questions, _ = make_questions(known, rarity, ask, everything(store), 3)
    folder = tmp_path / "made"
    check_free(folder)
    write_dataset(folder, known, questions, {"seed": 0})
    dataset = load_dataset(folder)
    assert {str(document.id): document.page_content for document in dataset.documents} == TEXTS
    assert list(dataset.queries.values()) == [question.text for question in questions]
    assert [dict(rels) for rels in dataset.qrels.values()] == [{question.passage.id: 1} for question in questions]
    labelled = load_sentences(folder)
    for question, made in zip(labelled.questions, questions, strict=True):
        [passage] = question.passages
        assert passage.document.page_content == made.passage.text
        [at] = passage.gold
        assert made.passage.unit(made.gold) == made.passage.text[slice(*_span(passage.document, at))]
    assert json.loads((folder / "about.json").read_text()) == {"seed": 0}
    with pytest.raises(InputError, match="already holds a dataset"):
        check_free(folder)


def test_ids_of_any_kind_come_back_from_the_folder(tmp_path: Path) -> None:
    ids = ['"a', "b\tc", 'd "e"', "f g", "é"]
    known = [Passage(id_, "source", "", "Boats float.", (Unit(0, 12),)) for id_ in ids]
    write_dataset(tmp_path / "made", known, [Question("float?", known[0], 0, tuple(ids))], {})
    assert load_dataset(tmp_path / "made").qrels == {"q1": dict.fromkeys(ids, 1)}


def _span(document: Document, at: int) -> tuple[int, int]:
    start, end, *_ = document.metadata["ragkit"]["units"][at]
    return start, end


def test_passages_know_their_headings_and_titles(encoder: Any) -> None:
    store = Store.memory(bm25_and_dense(encoder))
    store.upsert([Document(id="a", page_content="Text of it.", metadata={"title": "Name"}), Document(id="b", page_content="  ")])
    [passage] = passages(store)
    assert (passage.id, passage.source, passage.headings) == ("a", "a", "Name")
