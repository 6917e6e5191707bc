#!/usr/bin/env python3
"""Tells people: by a webhook, a Slack-compatible one, or mail.

`{name}` in message and title is a fact of the run: run, number, pipeline, branch, commit, task.
"""

import os
import re
import smtplib
import ssl
import sys
import time
from email.message import EmailMessage
from urllib.parse import urlsplit

import httpx2

from plugins.parameters import Parameters, fail

SECONDS = 20.0
TRIES = 3
FACTS = {
    "run": "MUSTER_RUN_ID",
    "number": "MUSTER_RUN_NUMBER",
    "pipeline": "MUSTER_PIPELINE_ID",
    "branch": "MUSTER_BRANCH",
    "commit": "MUSTER_COMMIT",
    "repository": "MUSTER_REPO_URL",
    "task": "MUSTER_TASK_ID",
}
_FACT = re.compile(r"\{(\w+)\}")


def main() -> None:
    """Tell what the parameters say, everywhere they say."""
    given = Parameters()
    message, title = filled(given.text("message")), filled(given.text("title"))
    told = 0
    if given.text("webhook"):
        _post(_url(given, "webhook"), {"title": title, "message": message, **_facts()})
        told += 1
    if given.text("slack"):
        text = f"*{title}*\n{message}" if title else message
        channel = {"channel": given.text("channel")} if given.text("channel") else {}
        _post(_url(given, "slack"), {"text": text, **channel})
        told += 1
    if given.words("mail_to"):
        _mail(given, title or message.splitlines()[0][:100], message)
        told += 1
    if not told:
        fail("say webhook, slack or mail_to")
    sys.stdout.write(f"told in {told} way{'s' if told > 1 else ''}\n")


def filled(text: str) -> str:
    """Return a text with the facts of the run in their places."""

    def fact(found: re.Match[str]) -> str:
        if found[1] not in FACTS:
            fail(f"message: there is no {{{found[1]}}}; there are {', '.join(sorted(FACTS))}")
        return os.environ.get(FACTS[found[1]], "")

    return _FACT.sub(fact, text)


def _facts() -> dict[str, str]:
    return {name: os.environ[of] for name, of in FACTS.items() if os.environ.get(of)}


def _url(given: Parameters, name: str) -> str:
    """Return a URL, or that which is in the variable that is named: it may be a secret."""
    text = given.text(name)
    url = text if text.startswith(("https://", "http://")) else given.secret(name)
    if not url.startswith(("https://", "http://")):
        fail(f"{name}: should be a URL, or a variable with one")
    return url


def _post(url: str, told: dict[str, str]) -> None:
    for attempt in range(TRIES):
        last = attempt + 1 == TRIES
        try:
            answer = httpx2.post(url, json=told, timeout=SECONDS)
        except httpx2.HTTPError as error:
            if last:
                fail(f"{_host(url)}: {error or type(error).__name__}")
        else:
            if answer.is_success:
                return
            if last or (answer.status_code not in (408, 429) and answer.status_code < 500):
                fail(f"{_host(url)} answers {answer.status_code}: {answer.text[:200]}")
        time.sleep(2**attempt)


def _host(url: str) -> str:
    """Return whose URL it is, without the path: that is the secret of a Slack webhook."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _mail(given: Parameters, subject: str, text: str) -> None:
    to = given.words("mail_to")
    place = urlsplit(given.text("smtp", "smtp://localhost"))
    mail = EmailMessage()
    mail["Subject"] = subject.replace("\n", " ")
    mail["From"] = given.text("mail_from", f"muster@{place.hostname}")
    mail["To"] = ", ".join(to)
    mail.set_content(text)
    user, password = given.text("smtp_user"), given.secret("smtp_password")
    context = ssl.create_default_context()
    try:
        if place.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                place.hostname or "", place.port or 465, timeout=SECONDS, context=context
            )
        else:
            server = smtplib.SMTP(place.hostname or "", place.port or 25, timeout=SECONDS)
        with server:
            server.ehlo()
            if place.scheme == "smtp" and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
            if user:
                server.login(user, password)
            server.send_message(mail, to_addrs=to)
    except (OSError, smtplib.SMTPException) as error:
        fail(f"mail by {place.hostname}: {error}")


if __name__ == "__main__":
    main()
