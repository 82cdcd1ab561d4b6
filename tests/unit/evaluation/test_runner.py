"""Tasks x methods on tiny models."""

import json
from dataclasses import replace

import pytest

from rapid_integrations import CompressionConfig, ConfigurationError, RapidEngine, SamplingParams
from rapid_integrations.evaluation.methods import parse_method
from rapid_integrations.evaluation.predictions import PredictionFile
from rapid_integrations.evaluation.runner import Runner
from rapid_integrations.evaluation.tasks.base import Item, PlannedTask, one_of
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.readers import Readers

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
ALL = ("lc", "rag", "rag-target", "sd", "magicdec", "rapid", "speculative_rag:drafts=2,passages=1")


class Words:
    """`documents` texts of random words with two questions each, or as many as `questions`."""

    name = "words"
    metric = "length"

    def __init__(self, documents=2, form=None, follow_up="", characters=700, questions=2):
        self._documents = documents
        self._form = form
        self._follow_up = follow_up
        self._characters = characters
        self._questions = questions

    def documents(self, context_tokens, count_tokens):
        for number in range(self._documents):
            text = words(number, self._characters)[: self._characters]
            yield [
                Item(
                    id=f"{number}.{question}",
                    document_id=str(number),
                    document=text,
                    before="Read. ",
                    after=f" Say: {text[10 * question : 10 * question + 5]}?",
                    query=text[10 * question : 10 * question + 30],
                    references=("x",),
                    max_new_tokens=10,
                    form=None if self._follow_up else self._form,
                    follow_up=self._follow_up,
                    follow_up_form=self._form,
                    follow_up_tokens=4,
                )
                for question in range(self._questions)
            ]

    def score(self, item, answer):
        return {"length": min(1.0, len(answer) / 100)}


def engine(drafter=False, **options):
    other = {"drafter_model": tiny_model("llama", 1)} if drafter else {}
    return RapidEngine.from_models(
        tiny_model("llama", 0), byte_tokenizer(), embedder=HashEmbedder(), compression=SMALL, **other, **options
    )


@pytest.fixture(scope="module")
def shared():
    with engine() as shared:
        yield shared


@pytest.fixture
def run(tmp_path):
    def run(engine, task, methods, *, label="words", context_tokens=None, max_seconds=None, **options):
        file = PredictionFile(tmp_path / "predictions.jsonl", {})
        runner = Runner(engine, **options)
        planned = PlannedTask(task, label, context_tokens)
        whole = runner.run([planned], [parse_method(m) for m in methods], file, max_seconds=max_seconds)
        return whole, file.predictions

    return run


def test_every_method_answers_every_question(run, shared):
    seen = []
    whole, predictions = run(shared, Words(), ALL, on_progress=lambda *step: seen.append(step))
    assert whole and len(predictions) == 2 * 2 * len(ALL)
    asked = [key[1:] for key in predictions][: 2 * len(ALL)]
    assert asked == [(item, method) for method in ALL for item in ("0.0", "0.1")]
    evaluated = [step[1:] for step in seen if step[0] == "evaluate"]
    assert evaluated[0] == (0, 28) and evaluated[-1] == (28, 28)
    for (_, item, method), prediction in predictions.items():
        target_alone = predictions["words", item, "lc"]
        # Verification makes these the target's own output, token for token (greedy, float32).
        if method in ("sd", "magicdec"):
            assert prediction.answer == target_alone.answer
            assert method == "magicdec" or prediction.stats.drafted_tokens > 0
        if method in ("rag", "rag-target"):
            assert prediction.usage.prompt_tokens < target_alone.usage.prompt_tokens / 2
        if method.startswith("speculative_rag"):  # with the template of "rag"
            assert 0 < prediction.usage.prompt_tokens <= predictions["words", item, "rag"].usage.prompt_tokens
        if method == "rapid":
            assert prediction.stats.law == "augmented"
            read = predictions["words", item, "rag"].usage.prompt_tokens
            assert prediction.usage.drafter_prompt_tokens == read  # the same prompt
    sparse = predictions["words", "0.0", "magicdec"]
    assert sparse.stats.proposer == "prompt_lookup" and sparse.stats.drafter is None  # it has no parts


def test_the_target_drafts_over_few_rows_of_its_own(run, tmp_path):
    tiny_model("llama", 0).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with RapidEngine.from_pretrained(tmp_path, dtype="float32", embedder=HashEmbedder(), compression=SMALL) as own:
        _, predictions = run(own, Words(1), ("lc", "magicdec", "magicdec:sinks=1,recent=64,draft=3"))
    alone, *sparse = (predictions["words", "0.0", name] for name in dict.fromkeys(key[2] for key in predictions))
    for each in sparse:
        assert each.stats.proposer == "magicdec" and each.stats.drafted_tokens > 0
        assert each.answer == alone.answer and each.usage.drafter_prompt_tokens == 0


def test_one_prefill_serves_a_document(run):
    with engine() as own:
        _, predictions = run(own, Words(), ("lc", "rapid", "sd"))
    for number in range(2):
        of_document = [p for p in predictions.values() if p.document == str(number)]
        first, *others = sorted(of_document, key=lambda p: p.stats.cached_prompt_tokens)
        assert first.method == "lc" and first.stats.cached_prompt_tokens < 64  # the other document's opening
        assert all(p.stats.cached_prompt_tokens > 0.9 * p.usage.prompt_tokens for p in others)


def test_a_run_goes_on_where_it_stopped(run, shared, monkeypatch):
    whole, predictions = run(shared, Words(), ("lc", "rag"), max_seconds=0)
    assert not whole and len(predictions) == 0
    run(shared, Words(), ("lc", "rag"), max_documents=1)
    made = []
    predict = Runner._predict
    monkeypatch.setattr(
        Runner,
        "_predict",
        lambda self, d, item, method, **given: (
            made.append((item.id, method.name)) or predict(self, d, item, method, **given)
        ),
    )
    whole, predictions = run(shared, Words(), ("lc", "rag"), max_questions=1)
    assert whole and made == [("1.0", "lc"), ("1.0", "rag")] and len(predictions) == 6


def test_tasks_take_turns(shared, tmp_path):
    file = PredictionFile(tmp_path / "p.jsonl", {})
    tasks = [PlannedTask(Words(documents), label) for documents, label in ((1, "a"), (2, "b"))]
    Runner(shared, max_questions=1).run(tasks, [parse_method("rag")], file)
    assert [key[:2] for key in file.predictions] == [("a", "0.0"), ("b", "0.0"), ("b", "1.0")]


def test_rag_reads_with_the_drafter_s_model(run):
    with engine(drafter=True) as two:
        _, predictions = run(two, Words(1), ALL)
    rag, rag_target = (predictions["words", "0.0", method] for method in ("rag", "rag-target"))
    assert rag.usage == rag_target.usage or rag.answer != rag_target.answer
    assert rag.answer != rag_target.answer  # two random models
    # The drafter reads its prompt once, for itself and for the engine.
    assert predictions["words", "0.0", "sd"].stats.cached_drafter_tokens == rag.usage.prompt_tokens - 1
    assert predictions["words", "0.0", "magicdec"].answer == predictions["words", "0.0", "lc"].answer


def test_unrelated_passages(run, shared):
    methods = ("rapid:eta=3", "rapid:eta=3,context=unrelated")
    _, predictions = run(shared, Words(), methods)
    assert predictions["words", "0.0", methods[1]].stats.retrieval == "unrelated"
    assert predictions["words", "0.0", methods[0]].stats.retrieval == "embedder"
    with pytest.raises(ConfigurationError, match="has only one: take at least two"):
        run(shared, Words(1), methods, label="alone")


def test_retrieved_tokens(run, shared):
    methods = ("rapid:retrieved=128", "rapid:retrieved=384")
    _, predictions = run(shared, Words(1), methods)
    short, long = (predictions["words", "0.0", method].usage.drafter_prompt_tokens for method in methods)
    assert 128 <= long - short <= 256


def test_documents_are_cut_to_the_context_and_the_window(run, shared):
    _, predictions = run(shared, Words(1), ("lc",), context_tokens=200, label="short")
    around = len("Read.  Say: 12345?") + 40  # and the chat template
    assert 200 < next(iter(predictions.values())).usage.prompt_tokens < 200 + around
    _, predictions = run(shared, Words(1, characters=4000), ("lc",), label="window")
    assert 1700 < predictions["window", "0.0", "lc"].usage.prompt_tokens < 2048


def test_documents_that_lost_their_middle_are_told(shared, tmp_path):
    runner = Runner(shared)
    tasks = [PlannedTask(Words(2), "whole"), PlannedTask(Words(2, characters=4000), "long")]
    assert runner.run(tasks, [parse_method("lc")], PredictionFile(tmp_path / "predictions.jsonl", {}))
    assert runner.cut == {"long": {"0", "1"}}


def test_letters_and_chain_of_thought(run, shared):
    pytest.importorskip("llguidance")
    _, predictions = run(shared, Words(1, one_of("AB")), ("lc", "rag", "rapid"), label="letters")
    assert all(p.answer in ("A", "B") for p in predictions.values())
    task = Words(1, one_of("AB"), follow_up="You thought {answer}. So?")
    _, predictions = run(shared, task, ("lc", "rag", "rapid"), label="cot")
    thought = [p for p in predictions.values() if p.task == "cot"]
    assert all(p.answer in ("A", "B") and p.reasoning not in ("A", "B") for p in thought)


def test_sampling_repeats_itself(shared, tmp_path):
    answers = []
    for seed in (1, 1, 2):
        file = PredictionFile(tmp_path / f"{len(answers)}.jsonl", {})
        runner = Runner(shared, sampling=SamplingParams(temperature=1.0), seed=seed, max_questions=1)
        runner.run([PlannedTask(Words(2), "words")], [parse_method("lc")], file)
        answers.append([p.answer for p in file.predictions.values()])
    assert answers[0] == answers[1] != answers[2]
    assert answers[0][0] != answers[0][1]


def test_questions_of_a_document_share_passes(tmp_path, monkeypatch):
    answers, passes, company = {}, {}, {}
    for at_once in (1, 4):
        with engine() as own, monkeypatch.context() as patched:
            readers = Readers(own, patched)
            readers.wait_for(at_once)
            file = PredictionFile(tmp_path / f"{at_once}.jsonl", {})
            runner = Runner(own, sampling=SamplingParams(temperature=1.0), at_once=at_once)
            runner.run([PlannedTask(Words(1, questions=6), "words")], [parse_method("lc")], file)
        answers[at_once] = {key: prediction.answer for key, prediction in file.predictions.items()}
        passes[at_once] = readers
        company[at_once] = [prediction.at_once for prediction in file.predictions.values()]
    assert answers[1] == answers[4] and list(answers[1]) == list(answers[4])  # sampled, and in the same order
    # How often four meet is up to the threads; that they do is not: the first four wait for each other.
    assert set(passes[1]) == {1} and max(passes[4]) == 4 and len(passes[4]) < len(passes[1])
    assert company == {1: [1] * 6, 4: [4, 4, 4, 4, 2, 2]}


def test_an_error_of_one_question_loses_no_other(run, shared, monkeypatch):
    predict = Runner._predict

    def fails_first(self, document, item, method, **given):
        if item.id == "0.1":
            raise ConfigurationError("this question fails")
        return predict(self, document, item, method, **given)

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_predict", fails_first)
        with pytest.raises(ConfigurationError, match="this question fails"):
            run(shared, Words(1, questions=4), ("lc",))
    seen = []
    whole, predictions = run(
        shared, Words(1, questions=4), ("lc",), on_progress=lambda *step: step[0] == "evaluate" and seen.append(step)
    )
    assert whole and [key[1] for key in predictions] == ["0.0", "0.2", "0.3", "0.1"]
    assert seen[0] == ("evaluate", 0, 4) and seen[1] == ("evaluate", 3, 4) and seen[-1] == ("evaluate", 4, 4)
    assert predictions["words", "0.1", "lc"].at_once == 1  # the others had been answered


def test_answers_to_another_question_of_the_same_name_are_not_taken(tmp_path, shared):
    class Asked(Words):
        def __init__(self, **changes):
            super().__init__()
            self.changes = changes

        def documents(self, context_tokens, count_tokens):
            for items in super().documents(context_tokens, count_tokens):
                yield [replace(item, **self.changes) for item in items]

    path = tmp_path / "predictions.jsonl"

    def run(task):
        return Runner(shared).run([PlannedTask(task, "words")], [parse_method("lc")], PredictionFile(path, {}))

    assert run(Asked())
    before = path.read_bytes()
    for change in ({"after": "\n\nand now?"}, {"document": "another text"}, {"references": ("another answer",)}):
        with pytest.raises(ConfigurationError, match=r"words, question 0.0: .* has answers to another question"):
            run(Asked(**change))
    assert run(Asked(groups={"of": "another kind"})) and path.read_bytes() == before
    lines = before.decode().splitlines()
    old = [json.dumps({k: v for k, v in json.loads(line).items() if k != "asked"}) for line in lines]
    path.write_text("\n".join(old) + "\n")  # a file of an earlier version says nothing about it
    assert run(Asked(after="\n\nand now?"))


def test_two_tasks_of_one_name_are_refused(tmp_path, shared):
    file = PredictionFile(tmp_path / "predictions.jsonl", {})
    tasks = [PlannedTask(Words(), "own:mine"), PlannedTask(Words(), "own:mine")]
    with pytest.raises(ConfigurationError, match="own:mine is the name of 2 tasks"):
        Runner(shared).run(tasks, [parse_method("lc")], file)
    assert not file.predictions
