"""Download pictures by list: many hosts at once, each politely, and nothing kept that the list does not vouch for.

What became of a picture goes into the journal once its file is in place. Whatever ends a run, the next one goes on from
there and loses no more than what was under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import os
import re
import socket
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from tqdm import tqdm

from facedata.journal import Journal, Outcome, download_state, examine
from xfrlib.artifacts import file_sha256, write_atomic
from xfrlib.data.images import IMAGE_SUFFIXES

try:
    import httpx
    from tenacity import (
        AsyncRetrying,
        RetryCallState,
        retry_if_exception_type,
        stop_after_attempt,
        wait_exponential_jitter,
    )
except ImportError as error:
    raise ImportError(f"downloading needs httpx and tenacity: pip install 'xfrlib[photos]' ({error})") from error

_SETTLED = ("dead", "not_a_picture", "changed")  # asking again will hardly help; the others are asked for in each run
_GIVE_UP_AFTER = 3  # pictures in a row for which a host took no connection


@dataclass(frozen=True)
class Policy:
    """How hard to try. Times in seconds."""

    workers: int = 16  #: requests under way; each may hold max_bytes in memory
    per_host: int = 2  #: of them to one host
    timeout: float = 15.0  #: longest silence: until there is a connection, and between two pieces of an answer
    deadline: float = 120.0  #: longest time for one request with its redirects; a slower answer is not asked for again
    retries: int = 3  #: after silence, a broken connection, 408, 429 or 5xx
    backoff: float = 1.0  #: before the first retry; doubles each time, plus up to as much at random
    max_wait: float = 60.0  #: longest pause; a server that asks for a longer one has refused
    max_bytes: int = 32 << 20
    max_redirects: int = 5
    user_agent: str = "xfrlib (research; pictures by list)"

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("per_host", 1), ("retries", 0), ("max_bytes", 1), ("max_redirects", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be at least {least}")
        for name in ("timeout", "deadline"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be above 0 seconds")


class _TryAgainError(Exception):
    """A failure that may pass; `outcome` stands if it does not."""

    def __init__(self, outcome: Outcome, after: float = 0.0) -> None:
        super().__init__(outcome.note)
        self.outcome, self.after = outcome, after


def download(
    table: pd.DataFrame,
    folder: str | Path,
    *,
    keep_changed: bool = False,
    retry_dead: bool = False,
    verify: bool = False,
    progress: bool = True,
    **policy: Any,
) -> pd.DataFrame:
    """Fetch what is not there yet and return `download_state` of the table. One run at a time in a folder.

    `table` has the columns url, sha256 (of the file, hexadecimal), stem (where to put it: a relative path with "/",
    without suffix), status ("faulty" rows are carried along) and note. Rows with the same address and hash are fetched
    once. A file gets its name when it is complete, decodes as a picture and has the listed hash; with `keep_changed`
    also when the hash differs. Settled rows (dead, changed, not a picture, too large for this limit) are asked for
    again only with `retry_dead`; `verify` hashes the files that are there instead of comparing their length. Further
    arguments are the fields of `Policy`. Ctrl-C stops at once; run again to go on.
    Raises `OSError` when a file cannot be written (disk full) and `ValueError` for an impossible policy.
    """
    folder, rules = Path(folder), Policy(**policy)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.rglob(".[0-9]*.*"):  # what `write_atomic` had in hand when a run was killed
        if re.match(r"\.\d+\..+_", left.name) and left.suffix in IMAGE_SUFFIXES:
            left.unlink()
    rows: list[Any] = list(download_state(table, folder).itertuples())
    jobs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        ask = row.status in ("not_tried", "timed_out", "refused", "error")
        ask |= row.status == "too_large" and (retry_dead or row.bytes < rules.max_bytes)
        ask |= row.status in _SETTLED and (retry_dead or (keep_changed and row.status == "changed" and not row.file))
        ask |= verify and row.status == "got" and file_sha256(folder / row.file) != row.sha256
        if ask:
            jobs[row.url, row.sha256].append(row.stem)
    if jobs:
        with tqdm(total=len(jobs), desc="downloading", unit="picture", mininterval=1, disable=not progress) as bar:
            _run(_Run(folder, rules, keep_changed, bar).all(jobs))
    return download_state(table, folder)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, also from a notebook, where a loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    with ThreadPoolExecutor(1) as thread, contextlib.closing(loop):
        future = thread.submit(loop.run_until_complete, task)
        try:
            future.result()
        finally:
            if not future.done():  # Ctrl-C: it reaches this thread, not that of the loop
                loop.call_soon_threadsafe(task.cancel)
                with contextlib.suppress(asyncio.CancelledError):
                    future.result()


@dataclass
class _Host:
    not_before: float = 0.0  #: on the monotonic clock: until then the host asked to be left alone
    failures: int = 0  #: pictures in a row for which there was no connection
    gone: Outcome | None = None


@dataclass
class _Run:
    folder: Path
    rules: Policy
    keep_changed: bool
    bar: Any
    answered: bool = False  #: some server has answered: there is a network
    done: Counter[str] = field(default_factory=Counter)

    async def all(self, jobs: dict[tuple[str, str], list[str]]) -> None:
        hosts: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)
        for (url, sha256), stems in jobs.items():
            hosts[_host(url)].append((url, sha256, stems))
        self.journal, self.places = Journal(self.folder), asyncio.Semaphore(self.rules.workers)
        # names are looked up in threads of their own; decoded pictures are large, so that few are in hand at once
        names = ThreadPoolExecutor(self.rules.workers, "names")
        asyncio.get_running_loop().set_default_executor(names)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "check") as self.checkers:
            try:
                async with self._client() as self.client, asyncio.TaskGroup() as group:
                    for listed in hosts.values():
                        host, queue = _Host(), iter(listed)
                        for _ in range(min(self.rules.per_host, len(listed))):
                            group.create_task(self._serve(host, queue))
            except ExceptionGroup as errors:  # a full disk, say, met by several at once
                raise errors.exceptions[0] from None

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self.rules.timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.rules.workers),
            follow_redirects=True,
            max_redirects=self.rules.max_redirects,
            headers={"User-Agent": self.rules.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        )

    async def _serve(self, host: _Host, queue: Iterator[tuple[str, str, list[str]]]) -> None:
        for url, sha256, stems in queue:
            answer = host.gone or await self._ask(url, host)
            if isinstance(answer, bytes):
                job = partial(self._store, answer, url, sha256, stems)
                answer = await asyncio.get_running_loop().run_in_executor(self.checkers, job)
            else:
                self._note(answer, url, sha256, stems)
            self.done[answer.status] += 1
            self.bar.set_postfix(self.done, refresh=False)
            self.bar.update()

    def _note(self, outcome: Outcome, url: str, sha256: str, stems: list[str]) -> None:
        for stem in stems:
            self.journal.add(stem, url, sha256, outcome)

    def _store(self, data: bytes, url: str, sha256: str, stems: list[str]) -> Outcome:
        """Check, write and note what has come: in one thread, which Ctrl-C lets end."""
        outcome = examine(data, sha256)
        if outcome.status == "got" or (outcome.status == "changed" and self.keep_changed):
            for stem in stems:
                with write_atomic(self.folder / (stem + outcome.suffix)) as part:
                    part.write_bytes(data)
        self._note(outcome, url, sha256, stems)
        return outcome

    async def _ask(self, url: str, host: _Host) -> bytes | Outcome:
        """The body, or why there is none, after all retries."""
        backoff = wait_exponential_jitter(multiplier=self.rules.backoff, jitter=self.rules.backoff)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.after if isinstance(error, _TryAgainError) else 0.0
            return max(asked, min(backoff(state), self.rules.max_wait))

        try:
            return await AsyncRetrying(
                stop=stop_after_attempt(self.rules.retries + 1),
                wait=wait,
                retry=retry_if_exception_type(_TryAgainError),
                reraise=True,
            )(self._attempt, url, host)
        except _TryAgainError as last:
            if isinstance(last.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
                host.failures += 1
                if host.failures >= _GIVE_UP_AFTER:
                    note = f"{last.outcome.note}; the host took no connection for {host.failures} pictures, not asked"
                    host.gone = Outcome(last.outcome.status, note)
            return last.outcome

    async def _attempt(self, url: str, host: _Host) -> bytes | Outcome:
        while (pause := host.not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        async with self.places:
            if host.gone:
                return host.gone
            try:
                async with asyncio.timeout(self.rules.deadline), self.client.stream("GET", url) as response:
                    self.answered, host.failures = True, 0
                    return self._refusal(response, host) or await self._body(response)
            except TimeoutError:
                return Outcome("timed_out", f"not complete after {self.rules.deadline:g} s")
            except httpx.TimeoutException as error:
                note = f"silent for {self.rules.timeout:g} s ({type(error).__name__})"
                raise _TryAgainError(Outcome("timed_out", note)) from error
            except httpx.TooManyRedirects:
                return Outcome("error", f"more than {self.rules.max_redirects} redirects")
            except httpx.TransportError as error:
                return self._no_answer(error, host)
            except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:  # the list, or a redirect, holds anything
                return Outcome("error", _say(error))

    def _refusal(self, response: httpx.Response, host: _Host) -> Outcome | None:
        """What the status line and the length say against reading on. Raises `_TryAgainError`."""
        code = response.status_code
        note = f"HTTP {code}"
        if code in (408, 425, 429) or code >= 500:
            after = retry_after(response.headers.get("Retry-After", ""))
            outcome = Outcome("refused" if code == 429 else "error", note)
            if after > self.rules.max_wait:
                return Outcome("refused", f"{note}, asks to wait {after:.0f} s")
            host.not_before = max(host.not_before, time.monotonic() + after)
            raise _TryAgainError(outcome, after)
        if code in (401, 402, 403, 451):
            return Outcome("refused", note)
        if code in (404, 410):
            return Outcome("dead", note)
        if not response.is_success:
            return Outcome("error", note)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self.rules.max_bytes:
            return Outcome("too_large", f"{length} bytes, allowed are {self.rules.max_bytes}", self.rules.max_bytes)
        return None

    async def _body(self, response: httpx.Response) -> bytes | Outcome:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self.rules.max_bytes:
                return Outcome("too_large", f"more than the allowed {self.rules.max_bytes} bytes", self.rules.max_bytes)
        return bytes(body)

    def _no_answer(self, error: httpx.TransportError, host: _Host) -> Outcome:
        causes = list(_causes(error))
        if any(isinstance(c, socket.gaierror) and c.errno in (socket.EAI_NONAME, _NO_ADDRESS) for c in causes):
            if not self.answered:  # without a network, every name is unknown, and no link is to be given up for that
                return Outcome("error", "unknown host; no server has answered yet in this run, is there a network?")
            host.gone = Outcome("dead", "unknown host")
            return host.gone
        if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes):
            return Outcome("error", _say(error))
        raise _TryAgainError(Outcome("error", _say(error))) from error


_NO_ADDRESS = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _say(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait: a number, or a date; 0 for anything else."""
    with contextlib.suppress(ValueError, TypeError):
        if value.strip().isdecimal():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
