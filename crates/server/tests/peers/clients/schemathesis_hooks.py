"""Values that schemathesis does not try, because the server takes more than its document says:

- an empty query value, which counts as absent
- a body of `null` or `[]`, which counts as an empty object
"""

import schemathesis


@schemathesis.hook
def filter_query(context, query):
    return not any(isinstance(value, str) and not value.strip() for value in (query or {}).values())


@schemathesis.hook
def filter_case(context, case):
    return case.body is not None and case.body != []
