"""Fields that both frameworks' classes have and hand to the engine."""

from datetime import date, datetime

import pytest

import langchain_rapid
import llama_index_rapid
from rapid_integrations import ConfigurationError
from tests.toys.models import byte_tokenizer, tiny_model


@pytest.mark.parametrize("make", [langchain_rapid.RapidLLM, langchain_rapid.ChatRapid, llama_index_rapid.RapidLLM])
def test_settings_of_the_prefix_files(make, tmp_path):
    objects = {"model": tiny_model("llama", 0), "tokenizer": byte_tokenizer(), "prefix_cache_dir": tmp_path}
    llm = make(**objects, prefix_cache_dir_bytes=12_345, template_date=date(2026, 1, 2))
    assert llm.rapid_engine.vocabulary.template_date == datetime(2026, 1, 2)
    assert llm.rapid_engine._prefixes.store.max_bytes == 12_345
    llm.rapid_engine.close()
    with pytest.raises(ConfigurationError, match="prefix_cache_dir_bytes=-1"):
        make(**objects, prefix_cache_dir_bytes=-1)


@pytest.mark.parametrize("make", [langchain_rapid.RapidLLM, langchain_rapid.ChatRapid, llama_index_rapid.RapidLLM])
def test_penalties_of_what_was_written(make):
    """`frequency_penalty` and `presence_penalty` are fields, and may be given for a call."""
    llm = make(model=tiny_model("llama", 0), tokenizer=byte_tokenizer(), frequency_penalty=0.5, presence_penalty=-1)
    options = llm.request_options({})["sampling"]
    assert (options.frequency_penalty, options.presence_penalty) == (0.5, -1.0)
    options = llm.request_options({"frequency_penalty": None, "presence_penalty": 2})["sampling"]
    assert (options.frequency_penalty, options.presence_penalty) == (0.5, 2.0)
    with pytest.raises(ConfigurationError, match="presence_penalty=3"):
        llm.request_options({"presence_penalty": 3})
    llm.rapid_engine.close()
