"""The HTTP shell: what it accepts, refuses and promises. The embedder is a fake."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from polymodal.index import create_index
from polymodal.service import Cards, Engine, write_cards
from polymodal.service.app import Limits, create_app
from polymodal.types import BadInput, Embeddings, MediaError, MissingExtra, Record

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
IDS = ("item 0", "sub/item#1?", "item2", 'i"3<b>')


class Fake:
    """Text and files point along one axis each; remembers what it was asked."""

    model = "fake"
    width = 4
    modalities: ClassVar = {"title": "text", "photo": "image", "facts": "table", "clip": "video", "numbers": "features"}

    def __init__(self) -> None:
        self.seen: list[Record] = []
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def embed(self, records: Sequence[Record]) -> Embeddings:
        self.seen += records
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        vectors = np.zeros((len(records), 4), np.float32)
        for row, record in enumerate(records):
            for place, name in enumerate(self.modalities):
                vectors[row, place % 4] += name in record.values
            photo = record.values.get("photo")
            if isinstance(photo, bytes) and not photo.startswith(b"\x89PNG"):
                raise MediaError("truncated", "photo ends after 3 bytes")
        return Embeddings(("query",), vectors / np.linalg.norm(vectors), self.model)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def app_engine(tmp_path: Path, fake: Fake) -> Engine:
    index = create_index("exact", "fake", 4)
    attributes = [{"colour": "red", "price": 3}, {"colour": "blue"}, {"colour": "red", "price": 9.5}, {}]
    index.add(Embeddings(IDS, np.eye(4, dtype=np.float32), "fake"), attributes)
    root = tmp_path / "media"
    root.mkdir()
    (root / "a.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    media = [{"modality": "photo", "kind": "image", "source": name} for name in ("a.png", "../secret.png")]
    write_cards(tmp_path, [{"id": IDS[1], "title": "One", "attributes": {"colour": "blue"}, "media": media}], root)
    return Engine(fake, index, Cards.open(tmp_path))


@pytest.fixture
def client(app_engine: Engine) -> Iterator[TestClient]:
    app = create_app(app_engine, Limits(max_body_bytes=4000, max_k=10, max_text=300, max_files=3, max_history=20))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as it:
        yield it


def found(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["results"]]


def test_info_describes_this_model(client: TestClient) -> None:
    info = client.get("/api/info").json()
    assert (info["model"], info["items"], info["width"], info["max_k"]) == ("fake", 4, 4, 10)
    entries = {one["name"]: (one["kind"], one["entry"], one["accept"], one["many"]) for one in info["modalities"]}
    assert entries["photo"] == ("image", "file", "image/*", True)
    assert entries["clip"] == ("video", "file", "video/*", False)
    assert (entries["title"][1], entries["facts"][1], entries["numbers"][1]) == ("text", "pairs", "numbers")
    colour, price = info["attributes"]
    assert colour["values"] == [["red", 2], ["blue", 1]]
    assert (price["kind"], price["min"], price["max"]) == ("number", 3, 9.5)


def test_search_by_a_mix(client: TestClient, fake: Fake) -> None:
    files = [("photo", ("a.png", PNG)), ("photo", ("b.png", PNG + b"2")), ("clip", ("c.mp4", b"moving"))]
    data = {"title": " red ", "facts": '[["colour", "red"], ["size", 3]]', "numbers": "[1, 2.5]", "k": "2"}
    response = client.post("/api/search", data=data, files=files)
    assert len(found(response)) == 2
    assert set(response.json()["used"]) == {"title", "photo", "facts", "clip", "numbers"}
    [record] = fake.seen
    assert record.values["photo"] == [PNG, PNG + b"2"]
    assert record.values["clip"] == b"moving"
    assert (record.values["title"], record.values["numbers"]) == ("red", [1, 2.5])
    assert record.values["facts"] == [["colour", "red"], ["size", 3]]


def test_filters_and_empty_fields(client: TestClient, fake: Fake) -> None:
    where = json.dumps({"colour": "red", "price": {"min": 4}})
    assert found(client.post("/api/search", data={"title": "x", "facts": "", "where": where})) == ["item2"]
    assert list(fake.seen[0].values) == ["title"]
    best = client.post("/api/search", data={"title": "x"}).json()["results"][0]
    assert (best["id"], best["score"]) == ("item 0", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({}, "query", "at least one"),
        ({"titel": "x"}, "form", "title"),
        ({"title": "x", "k": "0"}, "k", "from 1 to 10"),
        ({"title": "x", "k": "11"}, "k", "from 1 to 10"),
        ({"title": "x", "k": "many"}, "k", "from 1 to 10"),
        ({"title": "x", "where": "{"}, "where", "not JSON"),
        ({"title": "x", "where": "[1]"}, "where", "object"),
        ({"title": "x", "where": '{"color": "red"}'}, "where", "Did you mean 'colour'"),
        ({"title": "x", "where": '{"price": NaN}'}, "where['price']", "finite"),
        ({"title": "x", "where": "[" * 290}, "where", "object"),
        ({"facts": "red"}, "facts", "not JSON"),
        ({"facts": "3"}, "facts", "pairs"),
        ({"numbers": '{"a": 1}'}, "numbers", "list of numbers"),
        ({"title": "x" * 301}, "title", "300 characters"),
        ({"photo": "text, no file"}, "photo", "upload"),
    ],
)
def test_bad_input_says_what_to_do(client: TestClient, data: dict[str, str], field: str, says: str) -> None:
    response = client.post("/api/search", data=data, files={"clip": ("", b"")} if not data else None)
    assert response.status_code == 400, response.text
    body = response.json()
    assert body["field"] == field
    assert says in body["message"]
    assert body["expected"]


def test_bad_files_have_their_reason(client: TestClient) -> None:
    response = client.post("/api/search", files={"photo": ("a.png", b"abc")})
    assert response.status_code == 422
    assert (response.json()["reason"], response.json()["got"]) == ("truncated", "photo ends after 3 bytes")
    empty = client.post("/api/search", files={"photo": ("a.png", b"")})
    assert (empty.status_code, empty.json()["reason"]) == (422, "empty")
    two = client.post("/api/search", files=[("clip", ("a", b"1")), ("clip", ("b", b"2"))])
    assert (two.status_code, two.json()["expected"]) == (400, "one file")
    many = client.post("/api/search", files=[("photo", (f"{i}", PNG)) for i in range(4)])
    assert many.status_code == 400


def test_a_body_that_is_too_large_is_cut_off_while_it_arrives(client: TestClient, fake: Fake) -> None:
    told = client.post("/api/search", files={"photo": ("a.png", PNG + b"x" * 5000)})
    assert (told.status_code, "4,000 bytes" in told.json()["message"]) == (413, True)
    sent = 0

    def untold() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        for _ in range(100):
            sent += 500
            yield b"x" * 500

    response = client.post("/api/search", content=untold(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 413
    assert response.headers["x-content-type-options"] == "nosniff"
    assert fake.seen == []


def test_similar_items_and_media_of_any_id(client: TestClient) -> None:
    for name in IDS:
        path = name.replace("/", "%2F").replace("#", "%23").replace("?", "%3F")
        assert client.get(f"/api/items/{path}").json()["id"] == name
        others = found(client.get(f"/api/similar/{path}", params={"k": 10}))
        assert sorted(others) == sorted(set(IDS) - {name})
    assert found(client.get("/api/similar/item2", params={"where": '{"colour": "red"}'})) == ["item 0"]
    item = client.get("/api/items/sub%2Fitem%231%3F").json()
    assert (item["title"], item["media"][0]["modality"], item["media"][0]["kind"]) == ("One", "photo", "image")
    picture = client.get(item["media"][0]["url"])
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    assert client.get(item["media"][0]["url"], headers={"range": "bytes=1-3"}).content == b"PNG"
    outside = client.get(item["media"][1]["url"])
    assert (outside.status_code, outside.json()["reason"]) == (422, "outside the media root")


def test_what_is_not_there_is_404(client: TestClient) -> None:
    gone = ("/api/items/x", "/api/similar/x", "/media/x/0", "/media/item2/0", "/media/item2/-1", "/page/../app.py")
    for path in (*gone, "/page/%2e%2e/app.py", "/docs", "/nothing"):
        response = client.get(path)
        assert response.status_code == 404, path
        assert response.json()["message"]
    assert client.get("/api/items/x").json()["hint"] == ""
    assert client.get("/api/similar/item2", params={"k": "a"}).status_code == 400
    assert client.get("/api/similar/item2", params={"k": 11}).json()["field"] == "k"


def test_the_page_and_the_headers(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/page/app.js", "/page/style.css", "/page/icon.svg"):
        assert path in page.text
        assert client.get(path).status_code == 200
    text = page.text + client.get("/page/app.js").text + client.get("/page/style.css").text
    assert "innerHTML" not in text
    assert "style=" not in page.text
    assert "onclick=" not in page.text
    assert not [
        word for word in text.split() if "//" in word and ("http:" in word or "https:" in word) and "w3.org" not in word
    ]
    for path in ("/", "/api/health", "/nothing"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/health", headers={"host": "evil.example"}).status_code == 400


def test_openapi_names_the_modalities(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/api/search"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {*Fake.modalities, "k", "where"}
    assert form["photo"]["items"]["format"] == "binary"
    assert {"200", "400", "413", "422", "503"} <= set(operation["responses"])
    assert {"/api/health", "/api/info", "/api/similar/{name}", "/api/items/{name}"} <= set(schema["paths"])
    assert "results" in schema["components"]["schemas"]["Results"]["properties"]


def test_health_answers_while_a_search_runs_and_a_long_queue_is_refused(app_engine: Engine, fake: Fake) -> None:
    fake.gate = threading.Event()
    app = create_app(app_engine, Limits(max_waiting=0))
    statuses: list[int] = []
    with TestClient(app, base_url="http://127.0.0.1") as client:
        worker = threading.Thread(
            target=lambda: statuses.append(client.post("/api/search", data={"title": "x"}).status_code)
        )
        worker.start()
        assert fake.entered.wait(10)
        assert client.get("/api/health").json() == {"status": "ok"}
        refused = client.post("/api/search", data={"title": "x"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        fake.gate.set()
        worker.join(10)
    assert statuses == [200]


def test_an_error_of_ours_is_not_shown(client: TestClient, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(records: Sequence[Record]) -> Embeddings:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(fake, "embed", broken)
    response = client.post("/api/search", data={"title": "x"})
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_modality_may_not_be_called_k(app_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "modalities", {"k": "text"})
    with pytest.raises(BadInput, match="Rename"):
        create_app(app_engine)


def test_recommend_for_a_topic(client: TestClient, fake: Fake) -> None:
    where = json.dumps({"colour": "red"})
    data = {"title": "beach party", "k": "3", "where": where, "diversity": "0.3"}
    response = client.post("/api/recommend", data=data, files=[("clip", ("c.mp4", b"moving"))])
    assert set(found(response)) == {"item 0", "item2"}
    assert response.json()["used"] == ["title", "clip"]
    assert fake.seen[0].values == {"title": "beach party", "clip": b"moving"}
    one = response.json()["results"][0]
    assert (one["probability"], one["group"]) == (None, None)
    assert one["score"] <= 1


def test_recommend_for_a_history(client: TestClient, fake: Fake) -> None:
    response = client.post("/api/recommend", data={"history": json.dumps(["item 0", IDS[1]]), "k": "4"})
    assert set(found(response)) == {"item2", IDS[3]}
    assert response.json()["used"] == ["history"]
    assert fake.seen == []
    missing = client.post("/api/recommend", data={"history": '["nobody"]'})
    assert (missing.status_code, missing.json()["got"]) == (404, "'nobody'")


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({}, "topic", "at least one"),
        ({"history": "[]"}, "history", "a list of 1 to 20 ids"),
        ({"history": '"item 0"'}, "history", "a list of 1 to 20 ids"),
        ({"history": "[1]"}, "history", "a list of 1 to 20 ids"),
        ({"history": "item 0"}, "history", "not JSON"),
        ({"history": json.dumps(["item 0"] * 201)}, "history", "characters"),
        ({"history": json.dumps(["a"] * 21)}, "history", "got 21 of them"),
        ({"history": '["item 0"]', "title": "x"}, "form", "a topic or a history"),
        ({"title": "x", "k": "0"}, "k", "from 1 to 10"),
        ({"title": "x", "diversity": "2"}, "diversity", "from 0 to 1"),
        ({"title": "x", "diversity": "much"}, "diversity", "from 0 to 1"),
        ({"title": "x", "least": "nan"}, "least", "from 0 to 1"),
        ({"title": "x", "least": "0.5"}, "least", "recommend-eval"),
        ({"title": "x", "where": '{"color": "red"}'}, "where", "Did you mean 'colour'"),
        ({"titel": "x"}, "form", "history"),
    ],
)
def test_bad_recommendations_say_what_is_wrong(client: TestClient, data: dict, field: str, says: str) -> None:
    response = client.post("/api/recommend", data=data)
    assert response.status_code == 400, response.text
    error = response.json()
    assert error["field"] == field
    assert says in error["message"]
    assert "diversity" not in client.post("/api/search", data={"title": "x"}).text
    assert client.post("/api/search", data={"title": "x", "diversity": "0.3"}).status_code == 400


def test_what_recommend_takes_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def fields(path: str) -> set[str]:
        body = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]
        return set(body["schema"]["properties"])

    assert fields("/api/recommend") - fields("/api/search") == {"history", "diversity", "least"}
    assert "404" in paths["/api/recommend"]["post"]["responses"]


def test_without_fastapi_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "polymodal.service.app")
    with pytest.raises(MissingExtra, match=r"polymodal\[serve\]"):
        importlib.import_module("polymodal.service.app")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.text(max_size=60) | st.recursive(st.none() | st.text(max_size=5) | st.floats(), lambda s: st.lists(s, max_size=3) | st.dictionaries(st.sampled_from(["colour", "price", "min", "max"]), s, max_size=3), max_leaves=6).map(json.dumps))  # fmt: skip  # noqa: E501
def test_no_filter_breaks_the_service(client: TestClient, where: str) -> None:
    response = client.post("/api/search", data={"title": "x", "where": where})
    assert response.status_code in (200, 400), response.text
