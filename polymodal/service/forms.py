"""The fields of a request, checked and turned into what the Engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import FormData, UploadFile

from polymodal.service.schemas import Limits, ModalityOut, parse_json
from polymodal.tasks.recommend import Wanted
from polymodal.types import BadInput, MediaError, Record, Where

__all__ = ["DEFAULT_K", "Form"]

DEFAULT_K = 24
_RESERVED = ("k", "where")
_LIST = ("history", "diversity", "least")


class Form:
    """What was sent, as a query or as a wish for recommendations."""

    # fields besides the modalities
    others = len(_RESERVED) + len(_LIST)

    def __init__(self, modalities: list[ModalityOut], limits: Limits) -> None:
        self._modalities = {one.name: one for one in modalities}
        self._limits = limits
        for name in (*_RESERVED, *_LIST):
            if name in self._modalities:
                names = ", ".join((*_RESERVED, *_LIST))
                raise BadInput("modalities", f"names other than {names}", repr(name), "Rename it.")

    async def read(self, form: FormData) -> tuple[Record, int, Where | None]:
        """A search: the query, how many, the filter."""
        record = Record("query", await self._values(form, _RESERVED))
        return record, self.k(self._text(form, "k")), self.where(self._text(form, "where"))

    async def read_wish(self, form: FormData) -> tuple[Record | list[str], Wanted, Where | None]:
        """Recommendations: a topic or a history, how the list is made, the filter."""
        values = await self._values(form, (*_RESERVED, *_LIST))
        history = self._history(self._text(form, "history"))
        if values and history is not None:
            raise BadInput("form", "a topic or a history", f"history and {', '.join(values)}")
        diversity = self._fraction(form, "diversity")
        wanted = Wanted(
            k=self.k(self._text(form, "k")),
            diversity=0.0 if diversity is None else diversity,
            least=self._fraction(form, "least"),
        )
        asked = Record("topic", values) if history is None else history
        return asked, wanted, self.where(self._text(form, "where"))

    async def _values(self, form: FormData, others: Sequence[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in dict.fromkeys(form.keys()):
            if name in others:
                continue
            if name not in self._modalities:
                known = ", ".join([*self._modalities, *others])
                raise BadInput("form", f"one of the fields {known}", repr(name))
            value = await self._value(self._modalities[name], form.getlist(name))
            if value is not None:
                values[name] = value
        return values

    def _history(self, text: str | None) -> list[str] | None:
        if text is None:
            return None
        expected = f"a list of 1 to {self._limits.max_history} ids"
        self._check_length("history", text)
        ids = parse_json("history", text, expected)
        if not isinstance(ids, list) or not 1 <= len(ids) <= self._limits.max_history:
            raise BadInput("history", expected, f"{len(ids)} of them" if isinstance(ids, list) else text)
        if not all(isinstance(one, str) for one in ids):
            raise BadInput("history", expected, text)
        return ids

    def _fraction(self, form: FormData, name: str) -> float | None:
        text = self._text(form, name)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError:
            raise BadInput(name, "a number from 0 to 1", repr(text)) from None

    async def _value(self, one: ModalityOut, given: list[UploadFile | str]) -> Any:
        if one.entry == "file":
            return await self._files(one, given)
        if len(given) > 1 or not isinstance(given[0], str):
            raise BadInput(one.name, "one text field", f"{len(given)} fields or a file")
        text = given[0].strip()
        self._check_length(one.name, text)
        if one.entry == "text" or not text:
            return text or None
        expected = 'an object {"name": value} or a list of pairs' if one.entry == "pairs" else "a list of numbers"
        value = parse_json(one.name, text, expected)
        if not isinstance(value, list) and not (one.entry == "pairs" and isinstance(value, dict)):
            raise BadInput(one.name, expected, text)
        return value or None

    async def _files(self, one: ModalityOut, given: list[UploadFile | str]) -> Any:
        uploads = [item for item in given if isinstance(item, UploadFile)]
        if len(uploads) < len([item for item in given if item]):
            raise BadInput(one.name, "a file", "text", f"Send it as an upload ({one.accept}).")
        files = [await upload.read() for upload in uploads if upload.filename or upload.size]
        if not files:
            return None
        if b"" in files:
            raise MediaError("empty", one.name)
        if len(files) > 1 and not one.many:
            raise BadInput(one.name, "one file", f"{len(files)} files")
        return files if len(files) > 1 else files[0]

    def _check_length(self, name: str, text: str) -> None:
        if len(text) > self._limits.max_text:
            raise BadInput(name, f"at most {self._limits.max_text:,} characters", f"{len(text):,} characters")

    @staticmethod
    def _text(form: FormData, name: str) -> str | None:
        value = form.get(name)
        if value is not None and not isinstance(value, str):
            raise BadInput(name, "a text field", "a file")
        return value or None

    def k(self, text: str | int | None) -> int:
        """How many results are asked for; never more than the limit."""
        if text is None:
            return min(DEFAULT_K, self._limits.max_k)
        number = int(text) if str(text).isascii() and str(text).isdigit() and len(str(text)) < 10 else 0
        if not 1 <= number <= self._limits.max_k:
            raise BadInput("k", f"a whole number from 1 to {self._limits.max_k}", repr(text))
        return number

    def where(self, text: str | None) -> Where | None:
        """A filter from its JSON; the index checks what it says."""
        if text is None:
            return None
        self._check_length("where", text)
        value = parse_json("where", text, "an object of attribute -> value")
        if not isinstance(value, dict):
            raise BadInput("where", "an object of attribute -> value", text)
        return value or None
