"""What schemathesis does not try: a query value that is empty. Clients send one for what they leave out, and it counts as
that; to schemathesis it is an error that goes unnoticed."""

import schemathesis


@schemathesis.hook
def filter_query(context, query):
    return not any(isinstance(value, str) and not value.strip() for value in (query or {}).values())
