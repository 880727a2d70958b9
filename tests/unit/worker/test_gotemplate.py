"""Go's text/template as far as service specs go; expected texts are what Go prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.worker.gotemplate import TemplateError, expand

DATA = {
    "Service": {"ID": "sid", "Name": "web", "Labels": {"a": "1", "com.x/y": "2"}},
    "Node": {"Hostname": "host1", "Platform": {"OS": "linux"}},
    "Task": {"Name": "web.1.t", "Slot": "1"},
    "Nums": [1, 2, 3],
    "Empty": "",
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-1"),
        ("{{ .Node.Platform.OS }}", "linux"),
        ('{{index .Service.Labels "com.x/y"}}', "2"),
        ('{{index .Service.Labels "none"}}', ""),
        ("{{.Service.Labels}}", "map[a:1 com.x/y:2]"),
        ('{{join "," "a" "b" .Task.Slot}}', "a,b,1"),
        ('{{if eq .Task.Slot "1"}}first{{else}}other{{end}}', "first"),
        ('{{if eq .Task.Slot "2"}}second{{else if .Empty}}e{{else}}other{{end}}', "other"),
        ("{{with .Service}}{{.Name}}{{end}}", "web"),
        ("{{with .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=1;com.x/y=2;"),
        ("{{range .Nums}}{{.}},{{end}}", "1,2,3,"),
        ("{{range $i, $n := .Nums}}{{if $i}} {{end}}{{$n}}{{end}}", "1 2 3"),
        ("{{$x := .Task.Slot}}{{$x}}{{$x}}", "11"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ('{{.Service.Name | printf "%s:%q" | print}}', "web:%!q(MISSING)"),
        ('{{printf "%s/%d" .Service.Name 7}}', "web/7"),
        ('{{printf "%q %v %5s|%-5s|" "a" true "b" "c"}}', '"a" true     b|c    |'),
        ("{{(index .Nums 1)}}", "2"),
        ('{{len "abc"}} {{len .Nums}}', "3 3"),
        ("{{and 1 .Empty}}{{or .Empty `raw`}}{{not 0}}", "rawtrue"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a {{- .Task.Slot -}} b", "a1b"),
        ('{{"q\\"uoted\\n"}}', 'q"uoted\n'),
        ("{{$.Service.Name}}", "web"),
        ('{{slice "abcdef" 1 3}}', "bc"),
        ('{{html "<a>"}} {{urlquery "a b"}}', "&lt;a&gt; a+b"),
    ],
)
def test_expansion(source: str, text: str) -> None:
    assert expand(source, DATA) == text


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Service.Labels.none}}", 'map has no entry for key "none"'),
        ("{{.Service.Name.More}}", "can't evaluate field"),
        ("{{", "unclosed action"),
        ("{{if .Empty}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{nosuch 1}}", 'function "nosuch" not defined'),
        ("{{}}", "missing value for command"),
        ('{{define "x"}}{{end}}', "is not supported here"),
        ("{{$x}}", "undefined variable"),
        ("{{index .Nums 9}}", "error calling index"),
        ("{{lt 1 .Empty}}", "error calling lt"),
        ("{{(1}}", "unclosed left paren"),
        ("{{range .Task.Slot}}{{end}}", "range can't iterate over"),
    ],
)
def test_errors_say_what_is_wrong(source: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: expansion: ") as caught:
        expand(source, DATA)
    assert complaint in str(caught.value)


@given(st.text(alphabet="{}.$|()-\"'` abif range end else with:=,%\n\\0", max_size=40))
def test_any_text_expands_or_is_refused_cleanly(source: str) -> None:
    try:
        assert isinstance(expand(source, DATA), str)
    except TemplateError:
        pass


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_is_left_alone(source: str) -> None:
    assert expand(source, DATA) == source
