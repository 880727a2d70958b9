"""Go's text/template, the part that service specs use, evaluated over plain dicts, lists and scalars.

A template is parsed into nodes and then evaluated: text, pipelines with `|` and parentheses, fields (`.Task.Name`),
variables, literals, `if`/`else if`, `with`, `range`, trim markers (`{{-`), comments, and Go's built-in functions except
those about Go types. Missing keys are errors, as Swarm sets `missingkey=error` (swarmkit template/getter). Templates
that define or include other templates are refused: a spec's value is one template.
Trap: Go prints maps as map[k:v] sorted by key and bools in lower case; users do see that in env values.
"""

from __future__ import annotations

import html
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Function = Callable[..., Any]


class TemplateError(Exception):
    """The template cannot be parsed or evaluated; the text says what and where in Go's manner."""


# --- lexing ----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\])+')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?))
    | (?P<variable>\$\w*)
    | (?P<field>\.\w+)
    | (?P<dot>\.)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<punct>:=|=|\||\(|\)|,)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    spaced: bool  # white space before it: `$x .Y` is two operands, `$x.Y` one


def _tokens(action: str) -> list[Token]:
    found, at = [], 0
    action = action.rstrip()
    while at < len(action):
        match = _TOKEN.match(action, at)
        if match is None:
            raise TemplateError(f"unexpected {action[at:].strip()[:20]!r} in {{{{{action}}}}}")
        kind = match.lastgroup or ""
        found.append(Token(kind, match.group(kind), match.start(kind) > at))
        at = match.end()
    return found


_ACTION = re.compile(r"\{\{(?P<left>-(?=\s))?(?P<body>.*?)(?P<right>(?<=\s)-)?\}\}", re.DOTALL)


def _split(source: str) -> list[tuple[str, str]]:
    """("text", …) and ("action", …) pieces with the trim markers applied."""
    pieces: list[tuple[str, str]] = []
    at, trim = 0, False
    for match in _ACTION.finditer(source):
        text = source[at : match.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if match["left"] else text
        pieces.append(("text", text))
        body = match["body"].strip()
        if not (body.startswith("/*") and body.endswith("*/")):
            pieces.append(("action", body))
        at, trim = match.end(), bool(match["right"])
    rest = source[at:]
    if "{{" in rest:
        raise TemplateError("unclosed action")
    pieces.append(("text", rest.lstrip() if trim else rest))
    return pieces


# --- the tree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Path:
    """Fields of a base: None is dot, a string a variable, else an operand in parentheses."""

    base: Pipeline | str | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    name: str


Operand = Literal | Path | Call


@dataclass(frozen=True, slots=True)
class Pipeline:
    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declare: bool = False


@dataclass(slots=True)
class Branch:
    """if, with or range: the body for a true value, the other for a false one."""

    kind: str
    pipeline: Pipeline
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


Node = str | Pipeline | Branch


class _ActionParser:
    def __init__(self, tokens: list[Token], source: str) -> None:
        self.tokens, self.at, self.source = tokens, 0, source

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def pipeline(self) -> Pipeline:
        variables, declare = self._assignment()
        commands: list[tuple[Operand, ...]] = []
        while True:
            operands: list[Operand] = []
            while (token := self.peek()) is not None and token.text not in ("|", ")"):
                operands.append(self._operand())
            if not operands:
                raise TemplateError(f"missing value for command in {{{{{self.source}}}}}")
            commands.append(tuple(operands))
            if (token := self.peek()) is not None and token.text == "|":
                self.at += 1
                continue
            return Pipeline(tuple(commands), variables, declare)

    def _assignment(self) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or `$i, $x :=` at the start of a pipeline."""
        names, at = [], self.at
        while at < len(self.tokens) and self.tokens[at].kind == "variable":
            names.append(self.tokens[at].text)
            at += 1
            if at < len(self.tokens) and self.tokens[at].text == ",":
                at += 1
                continue
            break
        if names and at < len(self.tokens) and self.tokens[at].text in (":=", "="):
            self.at = at + 1
            return tuple(names), self.tokens[at].text == ":="
        return (), False

    def _operand(self) -> Operand:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind in ("string", "char", "number"):
            return Literal(_literal(token))
        if token.kind == "name":
            if token.text in ("true", "false", "nil"):
                return Literal({"true": True, "false": False, "nil": None}[token.text])
            return Call(token.text)
        if token.kind == "dot":
            return Path(None, ())
        if token.kind == "field":
            return Path(None, (token.text[1:], *self._more_fields()))
        if token.kind == "variable":
            return Path(token.text, self._more_fields())
        if token.text == "(":
            inner = self.pipeline()
            if (close := self.peek()) is None or close.text != ")":
                raise TemplateError(f"unclosed left paren in {{{{{self.source}}}}}")
            self.at += 1
            return Path(inner, self._more_fields())
        raise TemplateError(f"unexpected {token.text!r} in {{{{{self.source}}}}}")

    def _more_fields(self) -> tuple[str, ...]:
        fields = []
        while (token := self.peek()) is not None and token.kind == "field" and not token.spaced:
            fields.append(token.text[1:])
            self.at += 1
        return tuple(fields)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _unquote(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if code[0] in "xuU" else _ESCAPES.get(code, code)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text)


def _literal(token: Token) -> Any:
    if token.kind == "string":
        return token.text[1:-1] if token.text[0] == "`" else _unquote(token.text[1:-1])
    if token.kind == "char":
        return ord(_unquote(token.text[1:-1]))
    return float(token.text) if "." in token.text else int(token.text, 0 if "x" in token.text.lower() else 10)


def parse(source: str) -> list[Node]:
    """The template's nodes. Raises `TemplateError`."""
    root: list[Node] = []
    # The open branches: the node, and which of its two lists takes what follows. After `else if` only the nested branch
    # is open: one `end` closes the whole chain.
    stack: list[tuple[Branch, list[Node]]] = []

    def target() -> list[Node]:
        return stack[-1][1] if stack else root

    for kind, piece in _split(source):
        if kind == "text":
            if piece:
                target().append(piece)
            continue
        tokens = _tokens(piece)
        if not tokens:
            raise TemplateError("missing value for command")
        word = tokens[0].text if tokens[0].kind == "name" else ""
        if word in ("if", "with", "range"):
            branch = _branch(word, tokens[1:], piece)
            target().append(branch)
            stack.append((branch, branch.body))
        elif word == "else":
            if not stack:
                raise TemplateError("unexpected {{else}}")
            branch, _ = stack.pop()
            if len(tokens) > 1:
                nested = _branch(tokens[1].text, tokens[2:], piece)
                if nested.kind not in ("if", "with"):
                    raise TemplateError(f"unexpected {{{{{piece}}}}}")
                branch.otherwise.append(nested)
                stack.append((nested, nested.body))
            else:
                stack.append((branch, branch.otherwise))
        elif word == "end":
            if not stack:
                raise TemplateError("unexpected {{end}}")
            stack.pop()
        elif word in ("define", "template", "block", "break", "continue"):
            raise TemplateError(f"{{{{{word}}}}} is not supported here")
        else:
            target().append(_whole(tokens, piece))
    if stack:
        raise TemplateError("unexpected EOF")
    return root


def _branch(word: str, tokens: list[Token], source: str) -> Branch:
    return Branch(word, _whole(tokens, source))


def _whole(tokens: list[Token], source: str) -> Pipeline:
    parser = _ActionParser(tokens, source)
    pipeline = parser.pipeline()
    if parser.peek() is not None:
        raise TemplateError(f"unexpected {tokens[parser.at].text!r} in {{{{{source}}}}}")
    return pipeline


# --- evaluation ------------------------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")  # Go: the zero value of a missing key
        elif isinstance(value, Sequence) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise TemplateError(f"error calling index: cannot index {show(value)} with {show(key)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, Sequence) or any(not 0 <= bound <= len(value) for bound in bounds):
        raise TemplateError("error calling slice: index out of range")
    return value[slice(*bounds)]


def _last_or_first(stop_at: bool) -> Function:
    def pick(*values: Any) -> Any:
        return next((value for value in values if bool(value) is stop_at), values[-1])

    return pick


# Widths are bounded as in Go, so that no template can ask for gigabytes.
_GO_VERB = re.compile(r"%([-+# 0]*)(\d{0,6})(?:\.(\d{1,6}))?([vsdqxXtcfgb%])")


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb == "q":
            return '"' + show(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        if verb in "dxXcfgb":
            form_spec = ("0" if "0" in flags else "") + width + (f".{precision}" if precision else "") + verb
            try:
                return format(value, form_spec)
            except (ValueError, TypeError):
                return f"%!{verb}({show(value)})"
        text = show(value)[: int(precision)] if precision else show(value)
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))

    return _GO_VERB.sub(one, form)


def _join(separator: str, *items: str) -> str:
    return separator.join(items)


BUILTINS: dict[str, Function] = {
    "join": _join,  # SwarmKit's only addition: the separator comes first
    "and": _last_or_first(False),
    "or": _last_or_first(True),
    "not": lambda value: not value,
    "len": len,
    "index": _index,
    "slice": _slice,
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "html": lambda *values: html.escape("".join(show(value) for value in values)),
    "urlquery": lambda *values: urllib.parse.quote_plus("".join(show(value) for value in values)),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
}


class _Evaluator:
    def __init__(self, root: Any, functions: Mapping[str, Function]) -> None:
        self.functions = {**BUILTINS, **functions}
        self.scopes: list[dict[str, Any]] = [{"$": root}]
        self.out: list[str] = []

    def run(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, str):
                self.out.append(node)
            elif isinstance(node, Pipeline):
                value = self.value(node, dot)
                if not node.variables:
                    self.out.append(show(value))
            else:
                self.branch(node, dot)

    def branch(self, node: Branch, dot: Any) -> None:
        self.scopes.append({})
        try:
            if node.kind == "range":
                self.loop(node, dot)
                return
            value = self.value(node.pipeline, dot)
            if value:
                self.run(node.body, value if node.kind == "with" else dot)
            else:
                self.run(node.otherwise, dot)
        finally:
            self.scopes.pop()

    def loop(self, node: Branch, dot: Any) -> None:
        names = node.pipeline.variables
        value = self.value(Pipeline(node.pipeline.commands), dot)
        pairs = [(key, value[key]) for key in sorted(value)] if isinstance(value, Mapping) else None
        if pairs is None:
            if not isinstance(value, list | tuple):
                raise TemplateError(f"range can't iterate over {show(value)}")
            pairs = list(enumerate(value))
        for key, item in pairs:
            self.scopes[-1].update(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))
            self.run(node.body, item)
        if not pairs:
            self.run(node.otherwise, dot)

    def value(self, pipeline: Pipeline, dot: Any) -> Any:
        piped: tuple[Any, ...] = ()
        for command in pipeline.commands:
            piped = (self.command(command, dot, piped),)
        if pipeline.variables:
            self.assign(pipeline.variables[0], piped[0], declare=pipeline.declare)
        return piped[0]

    def assign(self, name: str, value: Any, *, declare: bool) -> None:
        scope = self.scopes[-1] if declare else next((one for one in reversed(self.scopes) if name in one), None)
        if scope is None:
            raise TemplateError(f"undefined variable {name!r}")
        scope[name] = value

    def command(self, operands: tuple[Operand, ...], dot: Any, piped: tuple[Any, ...]) -> Any:
        first, *others = operands
        if isinstance(first, Call):
            function = self.functions.get(first.name)
            if function is None:
                raise TemplateError(f'function "{first.name}" not defined')
            arguments = [self.operand(one, dot) for one in others]
            try:
                return function(*arguments, *piped)
            except TemplateError:
                raise
            except Exception as error:
                raise TemplateError(f"error calling {first.name}: {error}") from error
        if others or piped:
            raise TemplateError("can't give argument to non-function")
        return self.operand(first, dot)

    def operand(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Call):
            return self.command((operand,), dot, ())
        if operand.base is None:
            value = dot
        elif isinstance(operand.base, str):
            scope = next((one for one in reversed(self.scopes) if operand.base in one), None)
            if scope is None:
                raise TemplateError(f'undefined variable "{operand.base}"')
            value = scope[operand.base]
        else:
            value = self.value(operand.base, dot)
        for name in operand.fields:
            if not isinstance(value, Mapping) or name not in value:
                kind = "map has no entry for key" if isinstance(value, Mapping) else "can't evaluate field"
                raise TemplateError(f'executing "expansion" at <.{".".join(operand.fields)}>: {kind} "{name}"')
            value = value[name]
        return value


def expand(source: str, data: Any, functions: Mapping[str, Function] | None = None) -> str:
    """The text that the template makes of `data`. Raises `TemplateError` prefixed like Go's ("template: expansion:
    …").
    """
    if "{{" not in source:
        return source
    try:
        evaluator = _Evaluator(data, functions or {})
        evaluator.run(parse(source), data)
    except TemplateError as error:
        raise TemplateError(f"template: expansion: {error}") from None
    return "".join(evaluator.out)
