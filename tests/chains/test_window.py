"""What a model's window leaves for a context, by the model's own counter and by an estimate."""

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from ragkit import BM25Retriever, GroundedAnswerer, InputError, Pipeline
from ragkit.chains.structured import structured
from ragkit.chains.window import window_budget
from ragkit.documents.tokens import RegexTokenizer, count_tokens


class Listening(BaseChatModel):
    """Keeps the prompts it is given."""

    heard: list[list[BaseMessage]] = []
    max_tokens: int | None = None
    tokenizer: Any = None

    @property
    def _llm_type(self) -> str:
        return "listening"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.heard.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Tea is green [1]."))])

    def get_num_tokens(self, text: str) -> int:
        raise ConnectionError("a provider's counter may need the network")

    get_token_ids = get_num_tokens  # type: ignore[assignment]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        call = {"name": tools[0].__name__, "args": {"statements": [{"text": "Tea is green.", "passages": [1]}]}, "id": "1"}
        return RunnableLambda(lambda prompt: AIMessage("", tool_calls=[call]))


def words(text: str) -> list[int]:
    return [0] * len(text.split())


def prompt(question: str) -> list[BaseMessage]:
    return ChatPromptTemplate.from_messages([("system", "a b c"), ("user", "{question}")]).format_messages(question=question)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    texts = [f"Tea number {n} is green. " + f"It grows on hill {n}. " * 40 for n in range(5)]
    return Pipeline(retriever=BM25Retriever.from_texts(texts))


def test_the_window_less_prompt_and_answer() -> None:
    model = Listening(profile={"max_input_tokens": 1000, "max_output_tokens": 100}, custom_get_token_ids=words)
    budget = window_budget(model, prompt)
    assert budget is not None
    assert budget.count(["one two", "three"]) == [2, 1]
    # two messages of 3 and 2 words, 8 tokens around each, 100 for the answer
    assert budget.tokens("d e") == 1000 - 5 - 16 - 100


@pytest.mark.parametrize(
    ("bound", "most", "kept_free"),
    [(300, 100, 300), (None, 100, 100), (None, None, 250), (None, 9000, 250), (5000, None, 500)],
)
def test_room_for_the_answer(bound: int | None, most: int | None, kept_free: int) -> None:
    profile: Any = {"max_input_tokens": 1000} | ({} if most is None else {"max_output_tokens": most})
    budget = window_budget(Listening(profile=profile, custom_get_token_ids=words, max_tokens=bound), prompt)
    assert budget is not None
    assert budget.tokens("") == 1000 - 3 - 16 - kept_free


def test_a_bound_of_answers_may_be_bound_to_the_model() -> None:
    model = Listening(profile={"max_input_tokens": 1000}, custom_get_token_ids=words, max_tokens=50)
    for llm in (model.bind(max_tokens=300), model.bind(max_tokens=100).bind(max_tokens=300).with_retry()):
        budget = window_budget(llm, prompt)
        assert budget is not None
        assert budget.tokens("") == 1000 - 3 - 16 - 300


def test_tokens_are_estimated_where_the_model_has_no_counter_of_its_own() -> None:
    budget = window_budget(Listening(profile={"max_input_tokens": 1000, "max_output_tokens": 100}), prompt)
    assert budget is not None
    text = "Unquestionably, 42 teas."
    assert budget.count([text]) == count_tokens(RegexTokenizer(), [text])
    assert budget.tokens("") == 900 - 3 - 16 - 100


def test_a_local_tokenizer_is_asked() -> None:
    class Characters:
        def encode(self, text: str) -> list[int]:
            return [*text.encode()]

    budget = window_budget(Listening(profile={"max_input_tokens": 1000}, tokenizer=Characters()), prompt)
    assert budget is not None
    assert budget.count(["abc"]) == [3]


def test_models_of_unknown_windows_have_no_budget() -> None:
    assert window_budget(Listening(), prompt) is None
    assert window_budget(Listening(profile={}), prompt) is None
    assert window_budget(RunnableLambda(lambda prompt: "x"), prompt) is None


def test_bound_and_structured_models_have_the_windows_of_their_models() -> None:
    model = Listening(profile={"max_input_tokens": 1000}, custom_get_token_ids=words)
    budgets = [window_budget(llm, prompt) for llm in (model, model.bind(stop=["x"]), model.with_retry(), structured(model))]
    assert len({budget.tokens("q") for budget in budgets if budget is not None}) == 1
    assert None not in budgets


def heard(model: Listening) -> str:
    return "\n".join(str(message.text) for message in model.heard[-1])


@pytest.mark.parametrize("counter", [words, None])
def test_prompts_fit_the_window_on_every_path(pipeline: Pipeline, counter: Any) -> None:
    window = 600
    model = Listening(profile={"max_input_tokens": window, "max_output_tokens": 100}, custom_get_token_ids=counter, heard=[])
    answerer = GroundedAnswerer(pipeline=pipeline, llm=model)
    count = (lambda text: len(words(text))) if counter else (lambda text: count_tokens(RegexTokenizer(), [text])[0])
    answers = [
        answerer.invoke("Which tea is green?"),
        answerer.batch(["Which tea is green?", "Which tea grows on a hill?"])[0],
        [*answerer.stream("Which tea is green?")][-1],
        asyncio.run(answerer.ainvoke("Which tea is green?")),
    ]
    assert len({answer.context.text for answer in answers}) == 1
    assert all(answer.text == "Tea is green [1]." for answer in answers)
    assert all(count("\n".join(str(m.text) for m in messages)) <= window - 100 for messages in model.heard)
    # and the window is made use of
    assert count(heard(model)) > window / 2
    whole = pipeline.ground("Which tea is green?")
    assert answers[0].context.tokens_kept < whole.tokens_kept


def test_what_the_user_says_goes_before_the_window(pipeline: Pipeline) -> None:
    model = Listening(profile={"max_input_tokens": 600}, heard=[])
    few = GroundedAnswerer(pipeline=pipeline, llm=model, max_tokens=30).invoke("Which tea is green?")
    assert few.context.text == pipeline.ground("Which tea is green?", max_tokens=30).text
    wide = pipeline.model_copy(update={"max_tokens": 2000})
    assert GroundedAnswerer(pipeline=wide, llm=model).invoke("Which tea is green?").context.text == (
        pipeline.ground("Which tea is green?", max_tokens=2000).text
    )


def test_a_question_that_fills_the_window_fails_alone(pipeline: Pipeline) -> None:
    model = Listening(profile={"max_input_tokens": 600}, heard=[])
    long = "tea " * 600
    failed, fine = GroundedAnswerer(pipeline=pipeline, llm=model).batch([long, "Which tea is green?"], return_exceptions=True)
    assert isinstance(failed, InputError)
    assert "the model's window of 600 tokens has no room" in str(failed)
    assert fine.text == "Tea is green [1]."


def test_earlier_messages_of_a_template_are_paid_for(pipeline: Pipeline) -> None:
    history = [("human", "What of coffee? " * 50), ("ai", "It is black.")]
    plain = [("system", "Cite passages."), ("user", "{context}\n{question}")]
    texts = []
    for messages in (plain, [plain[0], *history, plain[1]]):
        model = Listening(profile={"max_input_tokens": 600}, heard=[])
        answerer = GroundedAnswerer(pipeline=pipeline, llm=model, prompt=ChatPromptTemplate.from_messages(messages))
        texts.append(answerer.invoke("Which tea is green?").context)
    assert texts[1].tokens_kept < texts[0].tokens_kept


def test_documents_are_untouched_by_wide_windows() -> None:
    pipeline = Pipeline(retriever=BM25Retriever.from_documents([Document(id="a", page_content="Tea is green.")]))
    model = Listening(profile={"max_input_tokens": 128_000}, heard=[])
    answer = GroundedAnswerer(pipeline=pipeline, llm=model).invoke("tea")
    assert answer.context.text == pipeline.ground("tea").text
