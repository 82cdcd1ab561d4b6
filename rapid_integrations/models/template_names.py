"""The names that a chat template reads beside the messages: what `chat_template_kwargs` may set.

`jinja2.meta` also names variables that a template sets in one branch and reads there, such as Qwen3's `content`. A user
should not be told of those, so the order of reading and setting is followed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rapid_integrations.prompt.template_arguments import RESERVED

_FUNCTIONS = {"raise_exception", "strftime_now"}  # transformers gives them to templates
_OF_MACROS = {"caller", "varargs", "kwargs"}


class _Generation(Extension):
    """The tag with which templates mark answers for training. transformers knows it; here only its inside counts."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def names_of(chat_template: Any) -> frozenset[str] | None:
    """Return the names of the arguments that a template reads.

    Args:
        chat_template: its text, or several by name (of which transformers chooses one for each prompt).

    Returns:
        None if the template cannot be parsed. Rendering it says why.
    """
    extensions = ["jinja2.ext.loopcontrols", "jinja2.ext.do", _Generation]
    environment = ImmutableSandboxedEnvironment(extensions=extensions)
    reads = _Reads()
    for text in chat_template.values() if isinstance(chat_template, dict) else [chat_template]:
        try:
            reads.follow(environment.parse(text).body, set())
        except (TemplateError, RecursionError):
            return None
    return frozenset(reads.names - environment.globals.keys() - RESERVED - _FUNCTIONS)


class _Reads:
    """Collects the names that are read where it is not certain that the template has set them before.

    `follow` walks over statements in their order, and adds to `known` what is certainly set behind them.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def follow(self, body: Iterable[nodes.Node], known: set[str]) -> None:
        for node in body:
            self._follow(node, known)

    def _follow(self, node: nodes.Node, known: set[str]) -> None:
        if isinstance(node, nodes.Name):
            if node.ctx == "load":
                self.names |= {node.name} - known
        elif isinstance(node, nodes.NSRef):
            self.names |= {node.name} - known
        elif isinstance(node, (nodes.Assign, nodes.AssignBlock)):
            inside = (
                [node.node] if isinstance(node, nodes.Assign) else [*([node.filter] if node.filter else ()), *node.body]
            )
            self.follow(inside, {*known} if isinstance(node, nodes.AssignBlock) else known)
            self._follow(node.target, known)  # a target such as `ns.x` reads `ns`
            known |= _set_by(node.target)
        elif isinstance(node, nodes.If):
            self._branches(node, known)
        elif isinstance(node, nodes.For):
            self._follow(node.iter, known)
            inner = {*known, *_set_by(node.target), "loop"}
            self.follow([*([node.test] if node.test else ()), *node.body], inner)
            self.follow(node.else_, {*known})
        elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
            if isinstance(node, nodes.Macro):
                known.add(node.name)
            else:
                self._follow(node.call, known)
            self.follow(node.defaults, known)
            self.follow(node.body, {*known, *(argument.name for argument in node.args), *_OF_MACROS})
        elif isinstance(node, nodes.With):
            self.follow(node.values, known)
            self.follow(node.body, {*known, *(name for target in node.targets for name in _set_by(target))})
        elif isinstance(node, (nodes.FilterBlock, nodes.Block, nodes.Scope)):
            self.follow(node.iter_child_nodes(), {*known})
        else:
            self.follow(node.iter_child_nodes(), known)

    def _branches(self, node: nodes.If, known: set[str]) -> None:
        """Follow the branches of an `if`. Behind it, what each of them sets is known."""
        found = []
        for branch in (node, *node.elif_):
            self._follow(branch.test, known)
            found.append({*known})
            self.follow(branch.body, found[-1])
        found.append({*known})
        self.follow(node.else_, found[-1])
        known |= set.intersection(*found)


def _set_by(target: nodes.Node) -> set[str]:
    names = [target] if isinstance(target, nodes.Name) else target.find_all(nodes.Name)
    return {name.name for name in names if name.ctx in ("store", "param")}
