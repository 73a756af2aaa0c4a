"""The catalogue: one object for all that the database holds."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import URL

from ddiseg.catalogue.accepted_work import WorkRows
from ddiseg.catalogue.batches import Batches
from ddiseg.catalogue.candidates import Candidates
from ddiseg.catalogue.comparisons import Comparisons
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.embeddings import Embeddings
from ddiseg.catalogue.evaluations import Evaluations, RobustnessRuns
from ddiseg.catalogue.events import EventLog
from ddiseg.catalogue.grouping import Grouping
from ddiseg.catalogue.hashes import Hashes
from ddiseg.catalogue.identities import Identities
from ddiseg.catalogue.images import Images
from ddiseg.catalogue.leases import Leases
from ddiseg.catalogue.malignancy import MalignancyEstimates
from ddiseg.catalogue.masks import Masks
from ddiseg.catalogue.model_versions import ModelVersions
from ddiseg.catalogue.near_duplicates import NearDuplicates
from ddiseg.catalogue.open_work import WorkOnServer
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.release_rows import ReleaseRows
from ddiseg.catalogue.runs import Jobs, Rounds
from ddiseg.catalogue.sources import Sources
from ddiseg.catalogue.splits import Splits
from ddiseg.catalogue.stored_rows import StoredRows
from ddiseg.catalogue.subsets import Subsets
from ddiseg.catalogue.tasks import Tasks


class Catalogue:
    """Images, masks, subsets, models, evaluations, tasks, rounds and events, in one database.

    Only its parts open transactions; each of their methods is one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.images = Images(database)
        self.grouping = Grouping(database)
        self.masks = Masks(database)
        self.comparisons = Comparisons(database)
        self.subsets = Subsets(database)
        self.candidates = Candidates(database)
        self.release_rows = ReleaseRows(database)
        self.identities = Identities(database)
        self.hashes = Hashes(database)
        self.stored_rows = StoredRows(database)
        self.sources = Sources(database)
        self.models = ModelVersions(database)
        self.provenance = Provenance(database)
        self.malignancy = MalignancyEstimates(database)
        self.tasks = Tasks(database)
        self.open_work = WorkOnServer(database)
        self.accepted_work = WorkRows(database)
        self.batches = Batches(database)
        self.embeddings = Embeddings(database)
        self.near_duplicates = NearDuplicates(database)
        self.splits = Splits(database)
        self.rounds = Rounds(database)
        self.jobs = Jobs(database)
        self.leases = Leases(database)
        self.evaluations = Evaluations(database)
        self.robustness = RobustnessRuns(database)
        self.events = EventLog(database)

    @classmethod
    def create(cls, url: str | URL) -> Catalogue:
        """Create or upgrade the catalogue at a SQLAlchemy URL; rows are kept."""
        database = Database(url)
        try:
            database.upgrade()
        except BaseException:
            database.engine.dispose()
            raise
        return cls(database)

    @classmethod
    def open(cls, url: str | URL, how_to_restore: Callable[[], str] | None = None) -> Catalogue:
        """Open the catalogue at `url`; raises WorkspaceError where its schema is not this program's.

        Args:
            how_to_restore: returns what to type where the database turns out to be damaged.
        """
        database = Database(url, how_to_restore)
        try:
            database.check()
        except BaseException:
            database.engine.dispose()
            raise
        return cls(database)

    def close(self) -> None:
        self._database.engine.dispose()
