"""Options that say which agents fit."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from cli.pairs import LABEL
from generated.task.v1 import task_pb2
from server.definition.selector import Requirement, SelectorSyntaxError, parse_selector

Function = TypeVar("Function", bound=Callable[..., object])


class SelectorType(click.ParamType[list[Requirement]]):
    """A selector in the string form of Kubernetes."""

    name = "selector"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Requirement]:
        """Return the requirements; wrong syntax is wrong usage."""
        try:
            return parse_selector(str(value))
        except SelectorSyntaxError as error:
            self.fail(str(error), param, ctx)


def selector_options(function: Function) -> Function:
    """Add `--label` and `--selector`; the function gets `label` and `selector`."""
    selector = click.option(
        "--selector",
        type=SelectorType(),
        multiple=True,
        metavar="EXPR",
        help="What an agent's labels must satisfy, such as 'zone in (a,b), !spot, cpus>3'.",
    )
    label = click.option(
        "-l",
        "--label",
        type=LABEL,
        multiple=True,
        metavar="K=V",
        help="A label an agent must have; give it once for each.",
    )
    return label(selector(function))


def label_selector(
    labels: Iterable[tuple[str, str]], selectors: Iterable[list[Requirement]]
) -> task_pb2.LabelSelector | None:
    """Return the selector that the options say, or None when they say nothing."""
    selector = task_pb2.LabelSelector(
        match_labels=dict(labels),
        match_expressions=[
            task_pb2.LabelSelectorRequirement(
                key=requirement.key,
                operator=task_pb2.LabelOperator.Value(
                    f"LABEL_OPERATOR_{requirement.operator.name}"
                ),
                values=requirement.values,
            )
            for requirements in selectors
            for requirement in requirements
            if requirement.operator is not None  # the syntax always has one
        ],
    )
    return selector if selector.ByteSize() else None


def describe_selector(selector: task_pb2.LabelSelector) -> str:
    """Return a selector as text, in the form that `--selector` reads."""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    return ", ".join([*parts, *(_describe(part) for part in selector.match_expressions)])


def _describe(requirement: task_pb2.LabelSelectorRequirement) -> str:
    values = ",".join(requirement.values)
    match requirement.operator:
        case task_pb2.LABEL_OPERATOR_IN:
            return f"{requirement.key} in ({values})"
        case task_pb2.LABEL_OPERATOR_NOT_IN:
            return f"{requirement.key} notin ({values})"
        case task_pb2.LABEL_OPERATOR_NOT_EXISTS:
            return f"!{requirement.key}"
        case task_pb2.LABEL_OPERATOR_GT:
            return f"{requirement.key}>{values}"
        case task_pb2.LABEL_OPERATOR_LT:
            return f"{requirement.key}<{values}"
        case _:
            return requirement.key
