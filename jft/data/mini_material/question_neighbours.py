"""Social situations among the neighbours of one house."""

TEXT = """
## slots
name: Alba/she/her/her | Boris/he/him/his | Carla/she/her/her | Dirk/he/him/his | Emil/he/him/his
  | Fiona/she/her/her | Georg/he/him/his | Hana/she/her/her | Ivo/he/him/his | Jana/she/her/her |
  Kurt/he/him/his | Lina/she/her/her | Milo/he/him/his | Nadia/she/her/her | Otto/he/him/his |
  Pia/she/her/her | Rolf/he/him/his | Selma/she/her/her | Timo/he/him/his | Ursula/she/her/her
kin: brother | sister | mother | father | cousin | aunt | uncle | grandmother
tool: hammer | drill | spirit level | screwdriver | stepladder | toolbox
wait: stairwell | laundry room | front garden | bus shelter | corner café
tens: ten | twenty | thirty | forty | fifty | ninety
fixer: plumber | heating engineer | handyman | gas fitter | mechanic
way: stairwell | hallway | front door | narrow corridor
pet: cat | dog | parrot | rabbit | tortoise | hamster
cake: apple tart | cheesecake | plum cake | carrot cake | lemon cake | walnut loaf
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
hour: six | seven | eight | nine | ten | eleven
num: three | four | five | six | seven | eight | nine | twelve
room: kitchen | cellar | attic | garage | stairwell | bathroom | hallway
inst: trumpet | violin | cello | drums | flute | accordion | piano
colour: red | green | blue | yellow | orange | purple
job: nurse | plumber | baker | driver | teacher | florist | lawyer | carpenter
town: Bremen | Leeds | Lyon | Turin | Gdansk | Bergen | Galway | Basel
gift: a scarf | a box of chocolates | a potted fern | a bottle of cider | a jar of honey | a
  handmade card | a bunch of tulips
sick: the flu | a bad cold | a sprained ankle | a broken toe | a sore throat

## frames
c: {name1} borrowed {a tool} from {name2} on {day} because the shelf in the {room} had come off
  the wall.
q: {name2} => Who lent {name1} the {tool}?
q: on {day} => When did {name1} borrow the {tool}?
q: because the shelf in the {room} had come off the wall => Why did {name1} need {a tool}?
q: {a tool} => What did {name1} borrow from {name2}?

c: {name1} looked after {name2}'s {pet} for {num} days while {name2} was at a wedding in {town}.
q: {name2}'s {pet} => What did {name1} look after?
q: {num} days => How long did {name1} take care of the {pet}?
q: in {town} => Where was the wedding that {name2} went to?
q: {name1} => Who took care of the {pet} during the wedding?

c: at {hour} in the evening {name1} still plays the {inst}, so {name2}, who sleeps next door,
  bought earplugs.
q: earplugs => What did {name2} buy?
q: the {inst} => Which instrument does {name1} play?
q: so that {name2.1} could sleep => Why did {name2} buy earplugs?
q: next door => Where does {name2} sleep?

c: {name1} baked {a cake} for {name2}, who had carried {num} heavy boxes to the {room} for
  {name1.2}.
q: {a cake} => What did {name1} bake?
q: because {name2} had carried heavy boxes for {name1.2} => Why did {name1} bake for {name2}?
q: {num} => How many boxes did {name2} carry?
q: to the {room} => Where did {name2} carry the boxes?

c: {name1} painted the front door {colour1} while {name2} was away, although both had agreed on
  {colour2}.
q: {colour1} => What colour did {name1} paint the door?
q: {colour2} => Which colour had the two agreed on?
q: while {name2} was away => When did {name1} paint the door?
q: the front door => What did {name1} paint?

c: the heating failed on {day}, and {name1} rang {name2}, {a fixer} from {town}, who came within
  {num} hours.
q: {a fixer} => What is {name2}'s job?
q: because the heating failed => Why did {name1} ring {name2}?
q: within {num} hours => How quickly did {name2} come?
q: on {day} => When did the heating fail?

c: {name1} forgot {name1.3} keys at work and waited in the {wait} until {name2} let {name1.2} in
  at {hour}.
q: {name1.3} keys => What did {name1} forget at work?
q: {name2} => Who let {name1} in?
q: in the {wait} => Where did {name1} wait?
q: at {hour} => When was {name1} let in?

c: {name1} has {sick}, so {name2} does the shopping for {name1.2} every {day} and brings {gift}.
q: because {name1} has {sick} => Why does {name2} shop for {name1}?
q: every {day} => How often does {name2} do the shopping?
q: {gift} => What does {name2} bring besides the shopping?
q: {sick} => What is {name1} suffering from?

c: {name1} found a wallet in the {room}, saw {name2}'s photo in it and rang the bell upstairs at
  {hour}.
q: a wallet => What did {name1} find?
q: by {name2}'s photo => How could {name1} tell whose wallet it was?
q: in the {room} => Where had the wallet been lying?
q: to give the wallet back => Why did {name1} ring the bell upstairs?

c: {name1} moved here from {town1} last spring, but {name1.3} {kin} stayed in {town2} and visits
  {num} times a year.
q: from {town1} => Where did {name1} live before?
q: last spring => When did {name1} move?
q: {num} times a year => How often does {name1}'s {kin} visit?
q: {name1.3} {kin} => Who visits {name1} from {town2}?

c: {name1} accused {name2} of taking the newspaper, but it was {name2}'s {pet} that had torn it
  up.
q: {name2}'s {pet} => Who had really torn up the newspaper?
q: of taking the newspaper => What did {name1} accuse {name2} of?
q: apologise to {name2} => What should {name1} do next?
q: {name2} => Who was accused by mistake?

c: {name1} collected money from {num} neighbours to buy {name2} {gift}, since {name2} leaves for
  {town} on {day}.
q: {gift} => What will {name2} be given?
q: because {name2} leaves for {town} => Why did {name1} collect money?
q: {num} => How many neighbours did {name1} collect money from?
q: on {day} => When does {name2} leave?

c: {name1} teaches {name2}'s {kin} the {inst} every {day}, and in return {name2} mends {name1.3}
  bicycle.
q: the {inst} => What does {name1} teach?
q: mends {name1.3} bicycle => What does {name2} do in return for the lessons?
q: every {day} => When do the lessons take place?
q: {name2}'s {kin} => Who takes lessons with {name1}?

c: {name1} complained to the landlord about the smell in the {room}, which came from {num} old
  fish in {name2}'s bin.
q: to the landlord => Who did {name1} complain to?
q: about the smell in the {room} => What did {name1} complain about?
q: {num} old fish in {name2}'s bin => What caused the smell?
q: take out the rubbish => What does {name2} need to do now?

c: {name1} slipped on the wet floor of the {room}, and {name2}, who is {a job}, carried {name1.2}
  to the sofa.
q: on the wet floor of the {room} => Where did {name1} slip?
q: to the sofa => Where did {name2} carry {name1}?
q: grateful to {name2} => How would {name1} feel afterwards?
q: {name2} => Who helped {name1} after the fall?

c: {name1} wrote a note about the noise, but put it in {name2}'s letter box instead of {name3}'s.
q: {name2} => Who got the note by mistake?
q: {name3} => Who was the note meant for?
q: about the noise => What was the note about?
q: in {name2}'s letter box => Where did {name1} put the note?

c: {name1} grew {num} pumpkins behind the house and gave the biggest to {name2} for {name2.3}
  soup.
q: {num} => How many pumpkins did {name1} grow?
q: for {name2.3} soup => What did {name2} need a pumpkin for?
q: behind the house => Where did {name1} grow the pumpkins?
q: the biggest => Which pumpkin did {name2} get?

c: {name1} was proud of {name1.3} {cake}, but {name2} is allergic to eggs and could not taste it.
q: because {name2.1} is allergic to eggs => Why could {name2} not taste the {cake}?
q: {name1} => Who was proud of the {cake}?
q: bake one without eggs => What could {name1} do for {name2} next time?
q: to eggs => What is {name2} allergic to?

c: {name1} and {name2} argued about the parking space until {name3} suggested that they use it on
  alternate days.
q: about the parking space => What did {name1} and {name2} argue about?
q: {name3} => Who ended the argument?
q: that they use it on alternate days => What did {name3} suggest?
q: helpful => How would you describe {name3}?

c: {name1} sold {name1.3} {inst} to {name2} for {num} hundred crowns, because {name1.3} {kin}
  needed a new roof.
q: {num} hundred crowns => How much did {name2} pay for the {inst}?
q: because {name1.3} {kin} needed a new roof => Why did {name1} sell the {inst}?
q: {name2} => Who owns the {inst} now?
q: a new roof => What did {name1}'s {kin} need?

c: on {day} the lift got stuck with {name1} inside, and {name2} talked to {name1.2} through the
  door for {tens} minutes.
q: {tens} minutes => How long did {name2} talk to {name1}?
q: in the lift => Where was {name1} stuck?
q: through the door => How did {name2} talk to {name1}?
q: to keep {name1.2} calm => Why did {name2} talk to {name1}?

c: {name1}'s {kin} had a birthday this {day}, and {name2} surprised them both with {a cake}.
q: {a cake} => What surprise did {name2} bring?
q: {name1}'s {kin} => Whose birthday was it?
q: this {day} => When was the birthday?
q: {name2} => Who had the idea of a surprise?

c: {name1} lets {name2} use the garden in summer, and {name2} shovels {name1.3} snow in winter.
q: in summer => When may {name2} use the garden?
q: {name2} => Who shovels the snow?
q: use the garden => What does {name1} let {name2} do?
q: shovels {name1.3} snow => How does {name2} return the favour in winter?

c: {name1} told {name2} a secret at {hour}, and by noon the whole house, even the {job} from
  {town}, knew it.
q: {name2} => Who did {name1} tell the secret to?
q: by noon => By when did the whole house know?
q: betrayed => How would {name1} feel about {name2} now?
q: the whole house => Who knew the secret in the end?

c: {name1} ordered a sofa that did not fit through the {way}, so {name2} lifted it over the
  balcony with ropes.
q: with ropes => How did {name2} get the sofa up?
q: because it did not fit through the {way} => Why was the sofa lifted over the balcony?
q: a sofa => What had {name1} ordered?
q: {name2} => Who got the sofa into the flat?

c: {name1} heard a crash in the {room} at {hour} and found {name2}'s {pet} sitting among broken
  plates.
q: a crash => What did {name1} hear?
q: {name2}'s {pet} => Which animal was among the broken plates?
q: at {hour} => At what time was there a crash?
q: sweep up the plates => What will {name1} need to do after this?

c: {name1} waters the plants in the {room} for {name2}, but forgot them last week, and {num} of
  them died.
q: {num} => How many plants died?
q: because {name1} forgot to water them => Why did the plants die?
q: in the {room} => Where are the plants?
q: sorry => How does {name1} probably feel?

c: {name1} practised a speech in the {room}, since {name1.1} is to speak at {name2}'s wedding in
  {town} on {day}.
q: a speech => What did {name1} practise?
q: in the {room} => Where did {name1} practise?
q: {name2} => Who is getting married?
q: in {town} => Where will the wedding be held?
"""
