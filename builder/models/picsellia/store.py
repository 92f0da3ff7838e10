"""The `ModelStore` of an organization on Picsellia."""

from __future__ import annotations

from typing import Any

from builder.host.credentials import Credentials
from builder.models.picsellia.datasets import PicselliaDatasets
from builder.models.picsellia.experiments import PicselliaExperiments
from builder.models.picsellia.fields import STORE
from builder.models.picsellia.platform import Platform
from builder.models.picsellia.speaking import sdk, translated
from builder.models.picsellia.versions import PicselliaVersions
from builder.models.transport import Patience, patient_session
from builder.records import Record


class Account(Record):
    """Who the platform takes the token for."""

    user: str
    organization: str
    organization_id: str
    host: str
    source: str


class PicselliaStore:
    """The `ModelStore` of an organization on Picsellia.

    Args:
        client: A connected `picsellia.Client`.
        patience: How often to try to make an object when the platform fails.
        source: Where the credentials came from, for people.
    """

    name = STORE

    def __init__(self, client: Any, patience: Patience | None = None, source: str = "") -> None:
        self._platform = Platform(client, patience or Patience())
        self._source = source
        self.versions = PicselliaVersions(self._platform)
        self.datasets = PicselliaDatasets(self._platform)
        self.experiments = PicselliaExperiments(self._platform, self.versions, self.datasets)

    @classmethod
    def connect(cls, credentials: Credentials, patience: Patience | None = None) -> PicselliaStore:
        """Connect to the platform.

        Raises:
            StoreError: The SDK is not installed, the host does not answer, or it refuses the token.
            NotFoundError: There is no such organization.
        """
        patience = patience or Patience()
        token = credentials.token.get_secret_value()
        with translated(credentials.host, token):
            client = sdk().Client(
                api_token=token,
                host=credentials.host,
                organization_id=credentials.organization_id,
                organization_name=credentials.organization_name,
                session=patient_session(patience),
            )
        return cls(client, patience, credentials.source)

    def account(self) -> Account:
        """Who the platform takes the token for.

        Raises:
            StoreError: The platform does not answer, or refuses the token.
        """
        with self._platform.speaking():
            user = self._platform.connection.get("/api/home/ping").json()["username"]
        client = self._platform.client
        return Account(
            user=user,
            organization=client.name,
            organization_id=str(client.id),
            host=client.connection.host,
            source=self._source,
        )
