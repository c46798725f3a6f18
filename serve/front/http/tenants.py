"""Whose kept prefixes a request may use: with API keys each key's own, unless they share.

How long a prompt takes tells whether its beginning was kept, so one key must not ask of another's.
The engine keeps prefixes apart by a request's `cache_salt`. A key's salt is a code over the digest
of the key and the salt that its client gave, made with a secret of this process:

- No two keys, and no two salts of one key, have one code: a digest has one length, so that what
  follows it is the client's.
- Who reaches Triton past this front may give any salt, but can't make a key's: that takes the
  secret. For the same reason a salt that is seen tells nothing of a key.
"""

import hmac
import secrets
from dataclasses import dataclass, field

from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.access import ApiKeys, no_key, read_api_keys
from nemotrt.serve.processes.options import FrontOptions

CODE = "sha256"


@dataclass(frozen=True, slots=True)
class Tenants:
    """The keys, and whether they share; without keys everybody does."""

    keys: ApiKeys = field(default_factory=ApiKeys)
    share_prefixes: bool = False
    _secret: bytes = field(default_factory=secrets.token_bytes, repr=False)

    def salt(self, authorization: str | None, given: str | None) -> str | None:
        """Return the salt of a request with that header, whose client gave one or none.

        Raises:
            ApiError: the header has no key of ours.
        """
        if self.share_prefixes or not self.keys.digests:
            return given
        owner = self.owner(authorization)
        return hmac.digest(self._secret, owner + (given or "").encode(), CODE).hex()

    def owner(self, authorization: str | None) -> bytes:
        """Return whose a request is: the digest of its key, the same for all without keys.

        Raises:
            ApiError: the header has no key of ours.
        """
        if not self.keys.digests:
            return b""
        holder = self.keys.holder(authorization)
        if holder is None:
            raise no_key()
        return holder

    def name(self, authorization: str | None) -> str:
        """Return what a log calls whose request it is: the place of its key; "" without a key."""
        holder = self.keys.holder(authorization) if self.keys.digests else None
        return "" if holder is None else f"key-{self.keys.digests.index(holder) + 1}"


def read_tenants(told: FrontOptions) -> Tenants:
    """Return the tenants that the options tell of.

    Raises:
        ConfigError: the API keys can't be read, or there is nobody to share with.
    """
    keys = read_api_keys(told.api_key_file)
    if told.share_prefixes and not keys.digests:
        raise ConfigError(
            "--share-prefixes is for API keys, and there are none: without keys all requests share."
        )
    return Tenants(keys, told.share_prefixes)
