"""Verifies webhook requests with the PyPI package standardwebhooks. Each line of the input is a request as JSON, with the
secret and the number of seconds by which the clock is ahead. Each line of the output is `verified TYPE` or `rejected REASON`.
"""

import json, sys
from datetime import datetime, timedelta

from standardwebhooks import Webhook, WebhookVerificationError, webhooks


class Clock(datetime):
    ahead = timedelta()

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.ahead


webhooks.datetime = Clock
for line in sys.stdin:
    request = json.loads(line)
    Clock.ahead = timedelta(seconds=request["aheadSeconds"])
    try:
        event = Webhook(request["secret"]).verify(request["body"], request["headers"])
        print("verified", event["type"])
    except WebhookVerificationError as error:
        print("rejected", error)
