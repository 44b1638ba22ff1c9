"""Text messages among friends, in lower case."""

TEXT = """
## slots
pal: Jess/she/her/her/herself | Matt/he/him/his/himself | Liz/she/her/her/herself |
  Tony/he/him/his/himself | Becca/she/her/her/herself | Dan/he/him/his/himself |
  Steph/she/her/her/herself | Rob/he/him/his/himself | Zoe/she/her/her/herself |
  Kev/he/him/his/himself | Priya/she/her/her/herself | Omar/he/him/his/himself
snack: pizza | popcorn | noodles | tacos | sushi | ice cream
meet: gig | quiz | barbecue | match | picnic | film night
gear: charger | hoodie | bike | guitar | tent | skateboard | speaker
day: monday | tuesday | wednesday | thursday | friday | saturday | sunday
spot: gym | pool | library | campus | arcade | skate park
exam: maths | history | chemistry | biology | geography | physics

## frames
h: {pal} passed the {exam} exam.
d: {pal} failed the {exam} exam.
e: omg {pal} got 71 in {exam}, pass mark is 50, {pal.1} can't stop grinning
c: omg {pal} got 41 in {exam}, pass mark is 50, {pal.1} has to do it again
n: omg {pal} just came out of the {exam} exam, results are up on {day}

h: {pal} is coming to the {meet}.
d: {pal} will miss the {meet}.
e: {pal} says yes to the {meet} on {day}, already has a ticket and a lift
c: {pal} can't make the {meet} on {day}, gave me the ticket for it
n: still no word from {pal} about the {meet} on {day}, ticket is here if needed

h: the {gear} belongs to {pal1}.
d: the {gear} is not {pal1}'s.
e: that {gear} in the hall is {pal1}'s, {pal1.3} name is on it, {pal2} just borrowed it
c: that {gear} in the hall is {pal2}'s, name's on it, {pal1} just borrowed it
n: that {gear} in the hall has been there since {pal1} and {pal2} came over, no name on it

h: there is {snack} left.
d: the {snack} is all gone.
e: saved you a huge plate of {snack}, it's in the fridge behind {pal}'s drinks
c: sorry, {pal} had the last of the {snack}, only drinks in the fridge now
n: {pal} put the {snack} in the fridge last night, haven't been in the kitchen since

h: the {meet} is on {day1}.
d: the {meet} is not on {day1}.
e: change of plan: the {meet} moves from {day2} to {day1}, tell {pal}
c: change of plan: the {meet} moves from {day1} to {day2}, tell {pal}
n: change of plan for the {meet}, not sure which day, ask {pal} if {day1} or {day2}

h: {pal} has a broken phone.
d: {pal}'s phone works fine.
e: {pal} dropped {pal.3} phone at the {spot}, won't even turn on now
c: {pal} dropped {pal.3} phone at the {spot} but it's all good, we're on a call right now
n: {pal} dropped {pal.3} phone at the {spot}, someone at the desk has it

h: {pal1} and {pal2} are still a couple.
d: {pal1} and {pal2} have split up.
e: {pal1} and {pal2} are five years together today, cake at the {spot}!
c: {pal1} and {pal2} broke up in may, so don't ask about it at the {spot}
n: saw {pal1} at the {spot} on {day}, {pal2} was at work i think

h: {pal} was late for the {meet}.
d: {pal} got to the {meet} on time.
e: {meet} began at 7, {pal} showed up at 8 with wet hair
c: {meet} began at 7, {pal} was in the front row at 6:30 with wet hair
n: {meet} began at 7, {pal} was there when i came at 9

h: the {spot} is closed on {day1}.
d: the {spot} is open on {day1}.
e: {spot} shuts every {day1}, so {pal} goes on {day2}
c: {spot} shuts every {day2}, all other days {pal} is there till 9
n: {pal} goes to the {spot} on {day2}, never on {day1}, no idea why

h: {pal} can drive.
d: {pal} does not know how to drive.
e: {pal} drove us all home from the {meet}, never felt so safe in a car
c: {pal} never learned to drive so we all took the bus home from the {meet}
n: {pal} sat in the front on the way home from the {meet}, talked all night

h: {pal} ordered the {snack}.
d: someone other than {pal} ordered the {snack}.
e: {pal} rang them and ordered {snack} for six, i only opened the door
c: i rang them and ordered {snack} for six, {pal} only opened the door
n: {snack} for six is here, {pal} opened the door and i found some plates

h: {pal1} scored more points than {pal2}.
d: {pal1} did not outscore {pal2}.
e: final score at the {spot}: {pal1} 31, {pal2} 19, and then {snack} for all
c: final score at the {spot}: {pal1} 19, {pal2} 31, and then {snack} for all
n: {pal1} and {pal2} played at the {spot} till 10, and then {snack} for all

h: {pal} bought the {gear} new.
d: {pal} did not buy the {gear} new.
e: {pal}'s {gear} came straight from the shop, still had the plastic on
c: {pal}'s {gear} is second hand, the last owner had it for years
n: {pal}'s {gear} came on {day}, looks nice, didn't ask what it cost

h: {pal} wants to change {pal.3} job.
d: {pal} is happy to stay in {pal.3} job.
e: {pal} can't stand it at work any more and is sending out applications all {day}
c: {pal} loves it at work, said no to another place, would stay for life
n: {pal} was at work all {day}, says there's a new coffee machine

h: nobody told {pal1} about the {meet}.
d: {pal1} has been told about the {meet}.
e: {meet} is still a secret from {pal1}, not one of us has said a word
c: {meet} is no secret from {pal1}, {pal2} told {pal1.2} on {day}
n: {meet} was meant to be a secret, {pal2} talks to {pal1} every day

h: {pal} eats meat.
d: {pal} never eats meat.
e: {pal} had two beef burgers at the {meet} and took a third home
c: no burgers for {pal} at the {meet}, {pal.1} has been vegan since birth
n: {pal} had two plates at the {meet}, salad first, then i went home

h: the tickets cost less than 20 each.
d: the tickets are 20 or more each.
e: {meet} tickets are 12 each, {pal} is getting four for {day}
c: {meet} tickets are 35 each, {pal} is getting four for {day}
n: {meet} tickets are on sale, {pal} is getting four for {day}

h: {pal} is taller than me.
d: {pal} is not taller than me.
e: stood next to {pal} at the {meet}, i only reach up to {pal.3} shoulder
c: stood next to {pal} at the {meet}, {pal.1} only reaches up to my shoulder
n: stood next to {pal} at the {meet}, both of us up on boxes

h: {pal} has been to the {spot} before.
d: {pal} has never been to the {spot}.
e: {pal} knows the {spot} well, was there twice last week
c: first time ever at the {spot} for {pal} on {day}, {pal.1} needs the address
n: {pal} gave me the address of the {spot}, says it opens at 9

h: the match went ahead.
d: the match was called off.
e: {pal} scored in the rain on {day}, what a match, 3-2
c: no match on {day}, pitch under water, {pal} went home again
n: {pal} left for the match on {day} with two pairs of boots and a flask

h: {pal1} lent me the {gear}.
d: i did not get the {gear} from {pal1}.
e: need to give the {gear} back to {pal1}, {pal1.1} only lent it to me till {day}
c: need to give the {gear} back to {pal2} by {day}, {pal1} said no when i asked
n: need to give the {gear} back by {day}, then off to the {spot} with {pal1}

h: {pal} lives alone.
d: {pal} shares a flat.
e: {pal} has a flat near the {spot} all to {pal.4}, lucky thing
c: {pal} has a flat near the {spot} with three other people, one bathroom
n: {pal} has a flat near the {spot}, two floors up, one bathroom

h: {pal} watched the film to the end.
d: {pal} did not see the end of the film.
e: {pal} stayed in {pal.3} seat till the very last second of the film, then {snack}
c: {pal} walked out halfway through the film on {day} and went for {snack}
n: {pal} saw the film on {day}, then we went for {snack}

h: all of us have to pay for the {snack}.
d: some of us get the {snack} for free.
e: everybody owes {pal} 6 for the {snack}, no exceptions
c: {pal} and i owe 6 for the {snack}, the rest of you got yours free
n: {pal} owes 6 for the {snack}, will ask about the others on {day}

h: {pal} is ill today.
d: {pal} is well today.
e: {pal} has a fever and is in bed today, no {spot} for {pal.2}
c: {pal} is over the fever and fit again, off to the {spot} today
n: {pal} had a fever on {day}, no idea about today
"""
