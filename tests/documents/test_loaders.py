"""Files of every format, bad files, and the search for files in folders."""

import gzip
import io
import json
import os
import sys

import pytest

from ragkit.documents.blocks import markdown_blocks
from ragkit.documents.loaders import UnreadableFile, find_files, load, load_bytes
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer
from ragkit.errors import InputError, RagkitError


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def one(path, **options):
    (source,), skipped = load(path, **options)
    assert not skipped
    return source


def reason(path, **options):
    with pytest.raises(UnreadableFile) as caught:
        load(path, **options)
    assert isinstance(caught.value, RagkitError)
    assert not isinstance(caught.value, InputError)
    assert str(caught.value) == f"{os.path.abspath(path)}: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    return caught.value.reason


def pdf_bytes(*pages, password=None):
    """A PDF that shows one line of text per page."""
    import pypdf
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 50 200 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("text", ["\ufeff# A\r\n\r\nb\r\n", "# Ä 😀\rb", "# e\u0301\n\n\x0cb"])
def test_text_is_decoded_as_it_is(tmp_path, text):
    source = one(write(tmp_path / "a.md", text))
    assert source.text == text == (tmp_path / "a.md").read_bytes().decode()
    assert source.blocks == markdown_blocks(text)
    assert source.name == source.file == str(tmp_path / "a.md")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "café latin"),
        ("cp1252", "Grüße"),
        ("cp1252", "He said “hello” – it’s fine…"),
        ("cp1252", "Le déjeuner était très bon, mais l'hôtel où nous étions logés coûtait cher. À bientôt, François."),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy."),
        ("cp1251", "Договор заканчивается третьего мая, ключи передаются раньше."),
        ("koi8_r", "Договор заканчивается третьего мая, ключи передаются раньше."),
        ("shift_jis", "契約は五月三日に終わります。鍵は前もって渡してください。"),
        ("euc_jp", "契約は五月三日に終わります。鍵は前もって渡してください。"),
        ("gb18030", "合同将于五月三日到期，请提前交还钥匙。"),
        ("euc_kr", "계약은 오월 삼일에 끝납니다. 열쇠를 미리 주세요."),
    ],
)
def test_old_encodings_are_guessed(tmp_path, encoding, text):
    assert one(write(tmp_path / "a.txt", text.encode(encoding))).text == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252"])
def test_other_encodings(tmp_path, encoding, caplog):
    text = "Grüße aus München. Das Café über der Straße ist schön, größer und älter als früher. " * 5
    assert one(write(tmp_path / "a.txt", text.encode(encoding))).text == text
    guessed = encoding == "cp1252"  # the others say what they are
    assert [record.args[0] for record in caplog.records] == [str(tmp_path / "a.txt")] * guessed


def test_titles(tmp_path):
    assert one(write(tmp_path / "a.md", "## x\n\n# The *one*\n")).title == "The one"
    assert one(write(tmp_path / "b.md", '---\r\ntitle: "From above"\r\n---\r\ntext')).title == "From above"
    assert one(write(tmp_path / "c.md", "text")).title == "c"
    assert one(write(tmp_path / "d.rst", "Top\n===\n")).title == "Top"
    assert one(write(tmp_path / "e.html", "<h1>H</h1>x")).title == "H"
    assert one(write(tmp_path / "f.log", "# x")).title == "f"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"", "empty"),
        ("a.md", b" \n\t\xef\xbb\xbf", "only white space"),
        ("a.txt", b"\x89PNG\x00\x01", "binary, not text"),
        ("a.txt", b"\xff\xfea", "binary, not text"),
        ("a.html", b"<script>x</script>", "no text in the page"),
        ("a.pdf", b"%PDF-1.4 nonsense", "broken PDF"),
        ("a.json", b'{"text": "a",\n\n oops}', "invalid JSON in line 3"),
        ("a.json", b'"text"', "record 1: not a JSON object"),
        ("a.json", b"[]", "no records"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.json", b'{"body": "b", "n": 1}', "record 1: no field 'text'; there are: 'body', 'n'"),
        ("a.jsonl", b"\n{\n", "record 2: invalid JSON in line 2"),
        ("a.jsonl", b'{"text": 1}', "record 1: field 'text' is not a string"),
        ("a.jsonl.gz", b"not gzip", "broken gzip"),
    ],
)
def test_unreadable(tmp_path, name, data, expected):
    assert expected in reason(write(tmp_path / name, data))


def test_not_there_or_no_file(tmp_path):
    assert reason(tmp_path / "gone.txt") == "no such file"
    assert "directory" in reason(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    assert reason(tmp_path / "pipe.txt") == "not a regular file"


def test_permission_denied(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")

    def deny(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", deny)
    assert reason(path) == "permission denied"


def test_pdf(tmp_path):
    source = one(write(tmp_path / "a.pdf", pdf_bytes("First page.", "", "Third page.")))
    assert source.text == "First page.\n\n\n\nThird page."
    assert [(mark.number, source.text[mark.offset :][:5]) for mark in source.pages] == [
        (1, "First"),
        (2, "\n\nThi"),
        (3, "Third"),
    ]
    assert source.lines == ()
    assert reason(write(tmp_path / "b.pdf", pdf_bytes(""))).startswith("no text")
    assert reason(write(tmp_path / "c.pdf", pdf_bytes("x", password="secret"))) == "encrypted PDF"


def test_pdf_without_the_library(tmp_path, monkeypatch):
    path = write(tmp_path / "a.pdf", "%PDF")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert "pip install 'ragkit[pdf]'" in reason(path)


def test_json_lines(tmp_path):
    records = [
        {"_id": "x", "text": "one\ntwo", "title": "T", "n": 1},
        {"id": 7, "text": "seven"},
        {"id": "same", "text": "a"},
        {"id": "same", "text": "b"},
        {"text": ""},
        {"id": True, "text": "lone \ud83d surrogate", "deep": ["\udc00"]},
    ]
    lines = [json.dumps(record) for record in records]
    data = "\ufeff" + "\r\n".join([*lines[:2], "", "{bad", *lines[2:]])
    for path in (write(tmp_path / "a.jsonl", data), write(tmp_path / "a.jsonl.gz", gzip.compress(data.encode()))):
        sources, skipped = load(path)
        assert [source.name.removeprefix(f"{path}#") for source in sources] == ["x", "7", "5", "6", "8"]
        assert [(skip.path.removeprefix(f"{path}#"), skip.reason.split(":")[0]) for skip in skipped] == [
            ("4", "invalid JSON in line 4"),
            ("@7", "field 'text' is empty"),
        ]
        assert (sources[0].title, sources[0].metadata, sources[0].text) == ("T", {"_id": "x", "n": 1}, "one\ntwo")
        assert [mark.number for mark in sources[0].lines] == [1, 1]
        assert sources[4].lines[0].number == 8
        assert sources[4].text == "lone \ufffd surrogate"
        for source in sources:
            json.dumps([d.metadata for d in split(source, RegexTokenizer())], ensure_ascii=False).encode()


def test_json(tmp_path):
    sources, skipped = load(
        write(tmp_path / "a.json", json.dumps([{"body": "a", "title": 3}, 1, {"body": "c", "_id": "k"}])), text_field="body"
    )
    assert [(source.name.rpartition("#")[2], source.text, source.metadata) for source in sources] == [
        ("1", "a", {"title": 3}),
        ("k", "c", {"_id": "k"}),
    ]
    assert [skip.path.rpartition("#")[2] for skip in skipped] == ["2"]
    assert one(write(tmp_path / "b.json", '{"text": "x"}')).name == f"{tmp_path}/b.json#1"


def test_names_of_records_are_unique(tmp_path):
    records = [{"id": "2", "text": "a"}, {"text": "b"}, {"id": 1.5, "text": "c"}]
    sources, _ = load(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records))))
    assert [source.name.rpartition("#")[2] for source in sources] == ["2", "@2", "3"]
    records = [{"id": "@3", "text": "a"}, {"id": "3", "text": "a"}, {"text": "a"}]
    sources, _ = load(write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, records))))
    assert [source.name.rpartition("#")[2] for source in sources] == ["@3", "3", "@@3"]


def test_load_is_read_and_load_bytes(tmp_path):
    path = write(tmp_path / "a.md", "# A\n\nb")
    assert load(path) == load_bytes(path.read_bytes(), path)


def found(tmp_path, *paths, exclude=()):
    return [str(path.relative_to(tmp_path)) for path in find_files(paths or [tmp_path], exclude)]


def test_folders_are_searched(tmp_path):
    for name in ("b.md", "a.TXT", "sub/c.rst", "sub/d.jsonl.gz", "sub/e.gz", "f.py", ".hidden.md", ".git/x.md", "sub/.x/y.md"):
        write(tmp_path / name, "x")
    assert found(tmp_path) == ["a.TXT", "b.md", "sub/c.rst", "sub/d.jsonl.gz"]
    assert found(tmp_path, tmp_path / "f.py", tmp_path / "sub", tmp_path) == [
        "f.py",
        "sub/c.rst",
        "sub/d.jsonl.gz",
        "a.TXT",
        "b.md",
    ]
    assert found(tmp_path, tmp_path / ".hidden.md", tmp_path / ".git") == [".hidden.md", ".git/x.md"]


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    write(tmp_path / "sub/a.md", "x")
    monkeypatch.chdir(tmp_path)
    assert list(find_files(["sub/../sub"])) == [tmp_path / "sub/a.md"]


def test_ignore_files(tmp_path):
    for name in (
        "keep.md",
        "drop.md",
        "build/x.md",
        "sub/drop.md",
        "sub/keep.txt",
        "sub/top.md",
        "top.md",
        "sub/deep/only.md",
        "b.md",
    ):
        write(tmp_path / name, "x")
    write(tmp_path / ".gitignore", "# comment\ndrop.md\nbuild/\n/top.md\n*.txt\n")
    write(tmp_path / "sub/.gitignore", "!drop.md\n/deep/*\n")
    write(tmp_path / ".ragkitignore", "b.*\n!/build/\n")
    assert found(tmp_path) == ["build/x.md", "keep.md", "sub/drop.md", "sub/top.md"]
    assert found(tmp_path, exclude=["sub/", "keep.*"]) == ["build/x.md"]
    assert found(tmp_path, tmp_path / "drop.md") == ["drop.md"]
    assert found(tmp_path, tmp_path / "drop.md", exclude=["drop.*"]) == []


def test_links(tmp_path):
    write(tmp_path / "a/x.md", "x")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c.md").symlink_to(tmp_path / "a/x.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    assert found(tmp_path) == ["a/x.md", "gone.md"]
    assert reason(tmp_path / "gone.md") == "no such file"


def test_links_to_themselves_end_nothing(tmp_path):
    write(tmp_path / "x.md", "x")
    for name in ("loop", "loop.md"):
        (tmp_path / name).symlink_to(name)
    assert found(tmp_path) == ["loop.md", "x.md"]
    assert "symbolic links" in reason(tmp_path / "loop.md")


@pytest.mark.parametrize("pattern", ["!", "x\\", "[z-a]"])
def test_lines_that_are_no_pattern(tmp_path, pattern):
    write(tmp_path / "x.md", "x")
    write(tmp_path / "y.md", "y")
    write(tmp_path / ".gitignore", f"{pattern}\ny.md\n")
    assert found(tmp_path) == ["x.md"]
    with pytest.raises(InputError, match=r"exclude: .*gitignore"):
        found(tmp_path, exclude=[pattern])


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.md"):
        list(find_files([tmp_path / "nothing.md"]))


def test_pipes_in_folders_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")
    assert found(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_closed_folder_is_reported(tmp_path):
    closed = write(tmp_path / "closed/a.md", "x").parent
    closed.chmod(0)
    try:
        assert found(tmp_path) == ["closed"]
        assert "denied" in reason(closed) or "directory" in reason(closed)
    finally:
        closed.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_not_utf8_is_reported(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(name, "w") as file:
        file.write("Some text.")
    with pytest.raises(UnreadableFile, match=r"its name is not UTF-8.*rename it"):
        load(type(tmp_path)(os.fsdecode(name)))
