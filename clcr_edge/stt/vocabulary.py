"""What the model can hear, what it must not mistake for it, and whose synthetic voices train and test it."""

from __future__ import annotations

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = (
    "yes", "no", "stop", "go", "help", "hello", "thanks", "left", "right", "up", "down", "start", "play", "please",
    "good", "bad", "okay",
)  # fmt: skip
VOCABULARY = DIGITS + COMMANDS
UNKNOWN = "[unk]"

# Everyday words. None is a vocabulary word or sounds the same as one (won, too, for, ate, know, write).
_EVERYDAY = _words(
    """
    about above across after again against all almost along always among and animal another answer any apple
    area arm around art ask away baby back ball bank because become bed before began begin behind being
    believe below best better between big bird black blue board boat body book both box boy bread bridge
    bring brother brown build building bus business but buy call can capital car card care carry case cat
    catch center certain chair chance change cheap child children choose church city class clean clear close
    clothes cloud coat coffee cold color come common company complete computer cook corner could country
    course cover cross cry cup cut dance dark daughter day dead decide deep dinner direct doctor dog door
    draw dream dress drink drive dry during each ear early earth east easy eat egg end enough even evening
    ever every example eye face fact family far farm fast father favor feel feet few field figure fill find
    finger finish fire first fish floor flower fly follow food foot force forest forget form found free
    fresh friend from front fruit full game garden gave general get girl give glass gold got great green
    ground group grow guess hair half hand happen happy hard hat have head hear heart heavy her here high
    him history hold home hope horse hospital hot hour house how hundred hurry ice idea important inside
    into iron island job join jump just keep kept key kind king kitchen knife lady lake land language large
    last laugh law lead learn leave leg lemon less letter level library life line list listen little live
    long look lose love low lunch machine main make man many map mark market matter maybe mean measure meat
    meet member men metal method middle might mile milk million mind minute money month moon more morning
    most mother mountain mouth move much music must name nation near neck need never new next night noise
    north nose note nothing notice number ocean off offer office often oil old once only open or orange
    order other our out over own page paint pair paper parent park part party pass past pay pen people
    perhaps person picture piece plan plane plant point police poor position possible power present press
    pretty price problem produce public pull push put question quick quiet quite radio rain read ready real
    reason record red remember rest rich ride ring river road rock roof room round rule run said salt same
    sand save saw say school science sea season seat second see seed seem sell send sentence serve set shape
    share she ship shirt shoe shop short should shoulder show sick side sign silver simple since sing sister
    sit size skin sky sleep slow small smell smile snow social soft some son song soon sound south space
    speak special spell spend spoke spring square stand star station stay step stick still stone story
    street strong student study such sugar summer sun sure surface sweet swim table take talk tall taste
    teach team tell test than that the their them then there these they thick thin thing think this those
    though thought thousand through time today together tomorrow tonight took top touch toward town trade
    train travel tree trouble true try turn under understand until use usual valley value very view village
    visit voice wait walk wall want war warm was wash watch water wave way we wear weather week weight well
    went were west what wheel when where which while white who whole why wide wife wild will wind window
    winter wish with without woman wonder wood word work world would wrong year yellow yesterday yet you
    young your
    """
)

# One sound away from a vocabulary word: what an [unk] of everyday words alone would not teach.
_NEAR = _words(
    """
    hero arrow nero wan run sun done tune do chew shoe true tree free knee floor more door fire fine hive
    dive fight sick sticks fix mix heaven eleven severn late gate bait ape night mine line nigh sign yet
    guess less chess yeah now nor note mow stock shop stoop step though grow goat gold hell health held yelp
    fellow yellow mellow hollow tanks banks thank thinks lift loft felt lest light ride ripe fright cup cap
    pup off town dawn drown gown star smart stark dart lay clay plate pray place pleat priest cheese breeze
    wood could goose god bed back mad bat obey decay away today
    """
)

# Out-of-vocabulary words that only the evaluation says.
TEST_FILLERS = _words(
    """
    absent balance basket bottle breakfast butter button camera candle castle cinema climate corner cotton
    culture danger desert diamond digital dollar dragon engine escape famous fashion feather festival
    finance forward freedom gentle giant guitar hammer harbor hobby honey hunter image insect jacket jungle
    ladder leather liquid magnet manager marble medical mirror mobile modern monkey museum mystery nature
    needle nephew novel object opera oven owner palace parade pattern pepper pilot planet pocket poem poetry
    potato profit puzzle rabbit rapid rescue rival robot rocket salad satellite shadow shower signal spider
    sponge stomach strange sunset surprise symbol teacher temple theater ticket tiger tissue tobacco tower
    traffic treasure trumpet tunnel uncle uniform vacuum velvet victory violin vitamin volcano wagon warning
    weapon whisper willow wizard zebra
    """
)

TRAIN_ACCENTS = ("gmw/en", "gmw/en-US", "gmw/en-GB-scotland", "gmw/en-029", "gmw/en-US-nyc", "gmw/en-GB-x-gbcwmd")
TEST_ACCENTS = ("gmw/en-GB-x-rp", "gmw/en-GB-x-gbclan")
# Families of variants (Gene and Gene2, all of klatt) stand on one side only: their members can sound the same.
TEST_VARIANTS = (
    "Alicia", "travis", "Andy", "AnxiousAndy", "linda", "Michael", "david", "Marco", "shelby", "victor", "f4", "m6",
)  # fmt: skip
TRAIN_VARIANTS = (
    "", "Alex", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee",
    "Mario", "Mike", "Mr serious", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "Storm",
    "Tweaky", "UniRobot", "adam", "anika", "anikaRobot", "announcer", "antonio", "aunty", "belinda",
    "benjamin", "boris", "caleb", "croak", "ed", "edward", "edward2", "f1", "f2", "f3", "f5", "grandma",
    "grandpa", "gustave", "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "klatt", "klatt2",
    "klatt3", "klatt4", "klatt5", "klatt6", "m1", "m2", "m3", "m4", "m5", "m7", "m8", "marcelo", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "robosoft",
    "robosoft2", "robosoft3", "robosoft4", "robosoft5", "robosoft6", "robosoft7", "robosoft8", "sandro",
    "steph", "steph2", "steph3", "whisper", "whisperf", "zac",
)  # fmt: skip

TRAIN_FILLERS = tuple(sorted((set(_EVERYDAY) | set(_NEAR)) - set(VOCABULARY) - set(TEST_FILLERS)))
NEAR_MISSES = tuple(sorted(set(_NEAR) - set(VOCABULARY)))

_ONSETS = _words(
    """
    b bl br ch d dr f fl fr g gl gr h j k kl kr l m n p pl pr r s sh sk sl sm sn sp st str sw t th tr tw v w
    y z
    """
)
_RHYMES = _words(
    """
    ab ack ad af ag ail ain ake all am an ang ank ap ar art ash at ate ave aw ay eb eck ed eed eek eel een
    eet eg ell em en ent er ert est et ib ice ick id ide ife ig ight ile im in ine ing ink ip ire ish it ive
    ob ock od og oid oil oke old om on ong oom oon oot op ord ore orn ort ot ound out ow ub uck ud uff ug
    ull um un unch ung unk up urn ush ust ut
    """
)


def pseudo_word(rng: np.random.Generator) -> str:
    """A made-up word of one to three English-looking syllables, never a vocabulary word: speech that means nothing."""
    while True:
        count = int(rng.choice([1, 2, 3], p=[0.4, 0.45, 0.15]))
        word = "".join(str(rng.choice(_ONSETS)) + str(rng.choice(_RHYMES)) for _ in range(count))
        if word not in VOCABULARY and word not in _HOMOPHONES:
            return word


_HOMOPHONES = _words(
    """
    wun tu fore fyve siks sevven ate nein nine yess noe stopp goe heelp hellow thancs rite dawn plaiz plees
    gud badd
    """
)
