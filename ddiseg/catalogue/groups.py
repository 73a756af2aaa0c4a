"""The groups of images that must stay together, kept by the transactions that change what makes them.

A group is everything that is connected by patients, lesions and near-duplicates, through any image of
the catalogue. Its number is the id of its oldest image. `LinkedImages` computes all groups at once;
the functions here look at the images that changed, and at the groups that these are or were in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue.database import in_parts, scalars_in
from ddiseg.catalogue.linking import (
    IdScope,
    LinkedImages,
    connect,
    id_scopes,
    link_keys,
    look_alike,
)
from ddiseg.catalogue.tables import GroupLink, Image, ImageGroup

#: Rows of one insert.
_ROWS = 10_000


def add_to_groups(session: Session, images: Sequence[Image]) -> None:
    """Store the groups of new images, which no import has compared yet, and join those that they link."""
    if not images:
        return
    scopes = id_scopes(session)
    keys = {
        image.id: link_keys(scopes.get(image.dataset_id), image.dataset_id, image.patient, image.lesion)
        for image in images
    }  # fmt: skip
    links = _first_of_keys(session, {key for of in keys.values() for key in of})
    pairs = [
        (image_id, links.setdefault(key, image_id)) for image_id, of in keys.items() for key in of
    ]
    pairs += pending_pairs(session, keys.keys())
    _insert_links(session, keys)
    session.execute(insert(ImageGroup), [{"image_id": i, "group_id": i} for i in keys])
    join_groups(session, pairs)


def join_groups(session: Session, pairs: Iterable[tuple[int, int]]) -> None:
    """Join the groups of images that are linked, given by id, now that they are."""
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    if not pairs:
        return
    groups = groups_of(session, {image_id for pair in pairs for image_id in pair})
    labels = sorted(set(groups.values()))
    place = {label: n for n, label in enumerate(labels)}
    numbers = connect(len(labels), [(place[groups[a]], place[groups[b]]) for a, b in pairs])
    oldest: dict[int, int] = {}
    for label, number in zip(labels, numbers.tolist(), strict=True):
        if oldest.setdefault(number, label) != label:
            own = update(ImageGroup).where(ImageGroup.group_id == label)
            session.execute(
                own.values(group_id=oldest[number]).execution_options(synchronize_session=False)
            )


def regroup(session: Session, image_ids: Collection[int]) -> None:
    """Compute the groups of images anew whose patients, lesions or near-duplicates changed."""
    if not image_ids:
        return
    session.flush()
    scopes = id_scopes(session)
    keys: dict[int, list[int]] = {}
    near: set[int] = set()
    for image in scalars_in(session, select(Image), Image.id, image_ids):
        keys[image.id] = link_keys(
            scopes.get(image.dataset_id), image.dataset_id, image.patient, image.lesion
        )
        if image.near_group is not None:
            near.add(image.near_group)
    before = set(groups_of(session, keys).values())
    for part in in_parts(keys):
        session.execute(
            delete(GroupLink)
            .where(GroupLink.image_id.in_(part))
            .execution_options(synchronize_session=False)
        )
    # Links lead from the images that changed to one image of each group beside their own.
    others = set(_first_of_keys(session, {key for of in keys.values() for key in of}).values())
    others.update(scalars_in(session, select(Image.id), Image.near_group, near))
    others.update(i for pair in pending_pairs(session, keys) for i in pair)
    _insert_links(session, keys)
    touched = before | set(groups_of(session, others).values()) | keys.keys()
    members = set(scalars_in(session, select(ImageGroup.image_id), ImageGroup.group_id, touched))
    _store(session, members | keys.keys(), scopes)


def rebuild_groups(session: Session) -> None:
    """Compute the groups of all images anew."""
    session.flush()
    session.execute(delete(GroupLink))
    session.execute(delete(ImageGroup))
    linked = _read(session, id_scopes(session), None)
    _insert_many(session, GroupLink, ({"key": k, "image_id": i} for k, i in linked.links()))
    groups = ({"image_id": i, "group_id": g} for i, g in linked.groups())
    _insert_many(session, ImageGroup, groups)


def groups_of(session: Session, image_ids: Iterable[int]) -> dict[int, int]:
    """Return the group of each image, by id; an image that is not in one is its own."""
    wanted = set(image_ids)
    found = {image_id: image_id for image_id in wanted}
    query = select(ImageGroup.image_id, ImageGroup.group_id)
    for part in in_parts(wanted):
        for image_id, group in session.execute(query.where(ImageGroup.image_id.in_(part))):
            found[image_id] = group
    return found


def sharing(images: Subquery, others: Subquery) -> Subquery:
    """Return the query for the `images` whose group has an image in `others`; both have `image_id`.

    Each group is looked at once, up to its first image among the others.
    """
    # An expression: to find distinct groups by their index would be to scan those of all images.
    group = (ImageGroup.group_id + 0).label("group_id")
    own = select(group).join(images, images.c.image_id == ImageGroup.image_id)
    groups = own.distinct().subquery()
    member = ImageGroup.__table__.alias()
    # Not a join: SQLite would look at all the others for each group.
    among = select(member.c.image_id).where(
        member.c.group_id == groups.c.group_id,
        exists().where(others.c.image_id == member.c.image_id),
    )
    leaking = select(groups.c.group_id).where(exists(among))
    return (
        select(images.c.image_id)
        .join(ImageGroup, ImageGroup.image_id == images.c.image_id)
        .where(ImageGroup.group_id.in_(leaking))
        .subquery()
    )


def pending_pairs(session: Session, image_ids: Collection[int]) -> list[tuple[int, int]]:
    """Return the pairs of images that were not compared yet and look alike, with one of these."""
    query = select(Image.id, Image.perceptual_hash, Image.patient).where(Image.near_group.is_(None))
    rows = [(row[0], row[1], row[2]) for row in session.execute(query.order_by(Image.id))]
    wanted = set(image_ids)
    return [pair for pair in look_alike(rows) if wanted & {*pair}]


def _first_of_keys(session: Session, keys: Collection[int]) -> dict[int, int]:
    """Return an image by each key that one has."""
    query = select(GroupLink.key, func.min(GroupLink.image_id)).group_by(GroupLink.key)
    found: dict[int, int] = {}
    for part in in_parts(keys):
        found.update({key: i for key, i in session.execute(query.where(GroupLink.key.in_(part)))})
    return found


def _store(session: Session, image_ids: Collection[int], scopes: Mapping[int, IdScope]) -> None:
    """Store the groups of images that have no link to any other image."""
    new = dict(_read(session, scopes, image_ids).groups())
    stored: dict[int, int] = {}
    query = select(ImageGroup.image_id, ImageGroup.group_id)
    for part in in_parts(new):
        stored |= {i: g for i, g in session.execute(query.where(ImageGroup.image_id.in_(part)))}
    changed: dict[int, list[int]] = defaultdict(list)
    for image_id, group in new.items():
        if image_id in stored and stored[image_id] != group:
            changed[group].append(image_id)
    for group, members in changed.items():
        for part in in_parts(members):
            own = update(ImageGroup).where(ImageGroup.image_id.in_(part)).values(group_id=group)
            session.execute(own.execution_options(synchronize_session=False))
    missing = [{"image_id": i, "group_id": g} for i, g in new.items() if i not in stored]
    _insert_many(session, ImageGroup, missing)


def _read(
    session: Session, scopes: Mapping[int, IdScope], image_ids: Collection[int] | None
) -> LinkedImages:
    """Return images, of these ids or all, with what links them."""
    linked = LinkedImages(scopes)
    columns = Image.__table__.c
    names = ("id", "dataset_id", "perceptual_hash", "near_group", "patient", "lesion")
    query = select(*(columns[name] for name in names)).order_by(columns.id)
    queries = [query]
    if image_ids is not None:
        queries = [query.where(columns.id.in_(part)) for part in in_parts(image_ids)]
    for each in queries:
        for row in session.connection().execute(each.execution_options(yield_per=_ROWS)):
            linked.add(*row)
    return linked


def _insert_links(session: Session, keys: Mapping[int, Sequence[int]]) -> None:
    rows = ({"key": key, "image_id": i} for i, of in keys.items() for key in dict.fromkeys(of))
    _insert_many(session, GroupLink, rows)


def _insert_many(
    session: Session, table: type[GroupLink | ImageGroup], rows: Iterable[dict[str, int]]
) -> None:
    remaining = iter(rows)
    while part := list(islice(remaining, _ROWS)):
        session.execute(insert(table), part)
