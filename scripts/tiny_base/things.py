"""Names, groups and OpenMoji codes of the pictures that the base knows beside flags."""

from __future__ import annotations

GROUPS: dict[str, str] = {
    "mammal": (
        "elephant:1F418 rabbit:1F430 cat:1F431 dog:1F436 horse:1F434 pig:1F437 wolf:1F43A "
        "bear:1F43B panda:1F43C lion:1F981 fox:1F98A monkey:1F412 koala:1F428 giraffe:1F992 "
        "zebra:1F993 kangaroo:1F998 hedgehog:1F994 camel:1F42B sheep:1F411 bat:1F987 tiger:1F42F "
        "gorilla:1F98D llama:1F999 beaver:1F9AB cow:1F42E mouse:1F42D"
    ),
    "bird": (
        "rooster:1F413 penguin:1F427 owl:1F989 eagle:1F985 duck:1F986 parrot:1F99C "
        "flamingo:1F9A9 swan:1F9A2 peacock:1F99A turkey:1F983"
    ),
    "bug": (
        "ant:1F41C bee:1F41D ladybug:1F41E butterfly:1F98B mosquito:1F99F spider:1F577 "
        "snail:1F40C scorpion:1F982 beetle:1FAB2 worm:1FAB1"
    ),
    "sea animal": (
        "octopus:1F419 crab:1F980 dolphin:1F42C whale:1F433 shark:1F988 shell:1F41A "
        "jellyfish:1FABC coral:1FAB8 lobster:1F99E squid:1F991"
    ),
    "reptile": ("snake:1F40D turtle:1F422 crocodile:1F40A lizard:1F98E dinosaur:1F996"),
    "fruit": (
        "grapes:1F347 watermelon:1F349 lemon:1F34B banana:1F34C pineapple:1F34D apple:1F34E "
        "pear:1F350 peach:1F351 cherries:1F352 strawberry:1F353 coconut:1F965 mango:1F96D "
        "kiwi:1F95D blueberries:1FAD0 melon:1F348 tangerine:1F34A"
    ),
    "vegetable": (
        "corn:1F33D eggplant:1F346 avocado:1F951 cucumber:1F952 potato:1F954 carrot:1F955 "
        "broccoli:1F966 garlic:1F9C4 onion:1F9C5"
    ),
    "food": (
        "pizza:1F355 hamburger:1F354 taco:1F32E bread:1F35E cheese:1F9C0 bacon:1F953 "
        "pretzel:1F968 sandwich:1F96A popcorn:1F37F croissant:1F950 sushi:1F363 ramen:1F35C "
        "pancakes:1F95E"
    ),
    "dessert": (
        "doughnut:1F369 cookie:1F36A candy:1F36C lollipop:1F36D cake:1F370 cupcake:1F9C1 "
        "pie:1F967 custard:1F36E icecream:1F366"
    ),
    "drink": (
        "tea:1F375 sake:1F376 beer:1F37A coffee:2615 cocktail:1F378 wine:1F377 champagne:1F37E smoothie:1F9CB"
    ),
    "clothing": (
        "hat:1F3A9 crown:1F451 tie:1F454 shirt:1F455 jeans:1F456 dress:1F457 kimono:1F458 "
        "boot:1F462 scarf:1F9E3 gloves:1F9E4 socks:1F9E6 shorts:1FA73 coat:1F9E5 sandal:1F461 "
        "goggles:1F97D bikini:1F459"
    ),
    "instrument": (
        "saxophone:1F3B7 guitar:1F3B8 trumpet:1F3BA violin:1F3BB flute:1FA88 banjo:1FA95 "
        "accordion:1FA97 maracas:1FA87"
    ),
    "sport": (
        "tennis:1F3BE basketball:1F3C0 football:1F3C8 volleyball:1F3D0 bowling:1F3B3 soccer:26BD "
        "baseball:26BE golf:26F3 ski:1F3BF sled:1F6F7"
    ),
    "tool": (
        "hammer:1F528 wrench:1F527 axe:1FA93 screwdriver:1FA9B ladder:1FA9C magnet:1F9F2 "
        "gear:2699 saw:1FA9A shield:1F6E1 scissors:2702 broom:1F9F9 bucket:1FAA3"
    ),
    "vehicle": (
        "bus:1F68C ambulance:1F691 taxi:1F695 truck:1F69A tractor:1F69C bicycle:1F6B2 "
        "scooter:1F6F4 skateboard:1F6F9 rocket:1F680 helicopter:1F681 airplane:2708 boat:26F5 "
        "canoe:1F6F6 ship:1F6A2"
    ),
    "plant": (
        "cactus:1F335 palm:1F334 mushroom:1F344 tulip:1F337 rose:1F339 sunflower:1F33B "
        "seedling:1F331 clover:1F340 leaf:1F341 lotus:1FAB7"
    ),
    "building": (
        "house:1F3E0 church:26EA mosque:1F54C castle:1F3F0 tent:26FA hut:1F6D6 stadium:1F3DF factory:1F3ED"
    ),
    "furniture": ("door:1F6AA toilet:1F6BD bathtub:1F6C1 bed:1F6CF chair:1FA91 mirror:1FA9E window:1FA9F"),
    "device": (
        "camera:1F4F7 tv:1F4FA radio:1F4FB keyboard:2328 printer:1F5A8 battery:1F50B "
        "computer:1F4BB phone:1F4F1 microphone:1F3A4 headphones:1F3A7 telescope:1F52D "
        "microscope:1F52C"
    ),
    "weather": (
        "rainbow:1F308 cloud:2601 tornado:1F32A snowflake:2744 snowman:2603 umbrella:2602 lightning:26A1"
    ),
    "toy": ("teddy:1F9F8 kite:1FA81 darts:1F3AF balloon:1F388 gift:1F381 yoyo:1FA80 puzzle:1F9E9"),
}


def thing_table() -> list[tuple[str, str, str]]:
    """Rows of (name, group, OpenMoji file stem), in a fixed order."""
    rows: list[tuple[str, str, str]] = []
    for group, text in GROUPS.items():
        for entry in text.split():
            name, code = entry.split(":")
            rows.append((name, group, code))
    return rows
