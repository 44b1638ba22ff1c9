"""Sentences about life in a village: who did what to whom, when and where."""

TEXT = """
## slots
name: Anna | Ben | Clara | David | Edith | Frank | Greta | Henry | Ines | Jakob | Karin | Leo |
  Marta | Nils | Olga | Paul | Rosa | Stefan | Tilda | Viktor | Wanda | Yusuf
thing: ladder | lawnmower | wheelbarrow | tent | trailer | sewing machine | chainsaw | canoe |
  barbecue | typewriter | telescope | accordion
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
month: January | February | March | April | May | June | July | August | September | October |
  November | December
year: 1962 | 1968 | 1971 | 1975 | 1979 | 1983 | 1986 | 1990 | 1994 | 1998 | 2003 | 2007
num: twelve | fifteen | eighteen | twenty | thirty | forty | sixty | ninety
shop: bakery | smithy | tailor's shop | pharmacy | bookshop | dairy | tannery | grocery
place: school | chapel | mill | town hall | library | post office | inn | fire station
spring: March | April | May
side: north | south | east | west
beast: goat | goose | donkey | pony | sheepdog | cow | calf | rooster
crop: potatoes | onions | cabbages | beans | carrots | turnips | pumpkins | leeks
job: mayor | teacher | organist | doctor | postman | miller | vet | blacksmith
event: the fair | the wedding | the concert | the harvest supper | the auction | the parade | the
  funeral | the election
office: mayor | treasurer | parish clerk | head of the school board | chair of the choir
colour: red | green | blue | yellow | white | grey | black | brown

## frames
~: name1 name2
=: {name1} lent {name2} the {thing} on {day}.
=: on {day}, {name2} borrowed the {thing} from {name1}.
=: it was on {day} that {name2} was lent the {thing} by {name1}.
=: the {thing} that {name2} got on {day} was a loan from {name1}.

~: name1 name2
=: {name1} sold the old {thing} to {name2} in {month}.
=: in {month}, {name2} bought the old {thing} from {name1}.
=: the old {thing} passed from {name1} to {name2} for money in {month}.
=: {month} was when {name2} paid {name1} for the old {thing}.

~: name1 name2
=: {name1} taught {name2} to play the organ before {event}.
=: before {event}, {name2} learned the organ from {name1}.
=: {name2}, a pupil of {name1}, learned to play the organ before {event}.
=: the organ lessons that {name1} gave {name2} came before {event}.

~: name1 name2
=: {name1} arrived at {event} after {name2} had left.
=: when {name1} came to {event}, {name2} was already gone.
=: {name2} left {event} before {name1} got there.
=: by the time {name1} reached {event}, {name2} had gone home.

~: shop1 shop2
=: the {shop1} closed in {year}, long before the {shop2}.
=: the {shop2} outlived the {shop1}, which shut in {year}, by many years.
=: long before the {shop2} did, the {shop1} went out of business, in {year}.
=: {year} saw the end of the {shop1}; the {shop2} lasted far longer.

~: year1 year2
=: the {place} got its roof in {year1} and its clock in {year2}, according to {name}.
=: according to {name}, the clock of the {place} dates from {year2} and the roof from {year1}.
=: {name} says that {year2} was when the {place} was given a clock; the roof came in {year1}.
=: roofed in {year1}, the {place} was fitted with a clock in {year2}, as {name} recalls.

~: place1 place2
=: the {place1} stands {side} of the {place2}.
=: go {side} from the {place2} and you come to the {place1}.
=: {side} of the {place2} you will find the {place1}.
=: if you want the {place1}, walk {side} from the {place2}.

~: name1 name2
=: {name1} phoned {name2} about the missing {beast} on {day}.
=: on {day}, {name2} had a call from {name1} about the missing {beast}.
=: {name2} was rung up by {name1} on {day} because the {beast} was missing.
=: the lost {beast} was the reason why {name1} called {name2} on {day}.

~: crop1 crop2
=: {name} planted more {crop1} than {crop2} in {spring}.
=: in {spring}, {name} planted fewer {crop2} than {crop1}.
=: the {crop1} that {name} planted in {spring} outnumbered the {crop2}.
=: when {name} planted the garden in {spring}, {crop2} got less room than {crop1}.

~: name1 name2
=: {name1} is older than {name2} by {num} months.
=: {name2} is younger than {name1} by {num} months.
=: {num} months after {name1}, {name2} was born.
=: {name2} came into the world {num} months later than {name1}.

~: num1 num2
=: {name} counted {num1} men and {num2} women at {event}.
=: at {event}, {num2} women and {num1} men were counted by {name}.
=: by the count of {name}, {event} was attended by {num1} men and {num2} women.
=: {num2} women came to {event}, along with {num1} men, as {name} noted.

~: name1 name2
=: {name1} forgave {name2} for selling the {beast}.
=: {name2} was forgiven by {name1} for having sold the {beast}.
=: {name1} no longer blames {name2} for the sale of the {beast}.
=: {name2} sold the {beast}, but {name1} has forgiven that.

~: day1 day2
=: the market moved from {day1} to {day2} in {year}.
=: in {year}, {day2} replaced {day1} as market day.
=: until {year} the market was held on {day1}; since then, {day2}.
=: market day, once {day1}, became {day2} in {year}.

~: name1 name2
=: {name1} persuaded {name2} to stand for {office}.
=: {name2} was talked into running for {office} by {name1}.
=: it was {name1} who convinced {name2} to become a candidate for {office}.
=: at the urging of {name1}, {name2} entered the race for {office}.

=: only {name} heard the {beast} on {day} night.
=: nobody but {name} heard the {beast} on {day} night.
=: on {day} night, the {beast} was heard by {name} alone.
=: except for {name}, no one noticed the {beast} on {day} night.
!: {name} heard only the {beast} on {day} night.
!: on {day} night, {name} heard nothing but the {beast}.
!: the {beast} alone was heard by {name} on {day} night.
!: all that {name} noticed on {day} night was the {beast}.

=: {name} did not promise to repair the {thing}.
=: {name} made no promise to repair the {thing}.
=: no promise to mend the {thing} was made by {name}.
=: the {thing} may or may not be mended: {name} promised nothing.
!: {name} promised not to repair the {thing}.
!: {name} made a promise not to mend the {thing}.
!: the {thing} was not to be repaired: that was what {name} promised.
!: {name} promised that the {thing} would not be mended.

=: not all the {crop} that {name} grew were eaten.
=: some of the {crop} that {name} grew were not eaten.
=: a part of the {crop} from the garden of {name} went uneaten.
=: {name} grew {crop}, and some were left over.
!: all the {crop} that {name} grew were not eaten: not one.
!: none of the {crop} that {name} grew were eaten.
!: the {crop} from the garden of {name} all went uneaten.
!: {name} grew {crop}, and all were left over.

=: {name1} nearly missed {event} on {day} because of {name2}.
=: because of {name2}, {name1} almost missed {event} on {day}.
=: {name1}, held up by {name2}, got to {event} on {day} only just in time.
=: a delay caused by {name2} almost made {name1} miss {event} on {day}.
!: {name1} missed nearly all of {event} on {day} because of {name2}.
!: because of {name2}, {name1} missed almost all of {event} on {day}.
!: {name1}, held up by {name2}, got to {event} on {day} only just in time for the end.
!: a delay caused by {name2} made {name1} miss almost all of {event} on {day}.

=: {name} stopped to feed the {beast} by the {place}.
=: by the {place}, {name} stopped in order to feed the {beast}.
=: {name} paused at the {place} and gave the {beast} something to eat.
=: the {beast} by the {place} was fed when {name} stopped there.
!: {name} stopped feeding the {beast} by the {place}.
!: by the {place}, {name} no longer feeds the {beast}.
!: {name} used to give the {beast} at the {place} something to eat.
!: the {beast} by the {place} was fed until {name} stopped.

~: colour1 colour2
=: {name} painted the {colour1} door {colour2} in {month}.
=: in {month}, {name} gave the {colour1} door a coat of {colour2} paint.
=: the door, {colour1} until {month}, was painted {colour2} by {name}.
=: thanks to {name}, the door changed from {colour1} to {colour2} in {month}.

~: name1 name2
=: {name1} gave up the post of {job} in {year} and {name2} took over.
=: in {year}, {name2} succeeded {name1} as {job}.
=: {name2} has been {job} since {year}, when {name1} stepped down.
=: the post of {job} went from {name1} to {name2} in {year}.

~: name1 name2
=: {name1} beat {name2} at chess on {day}.
=: on {day}, {name2} lost a game of chess to {name1}.
=: {name2} was no match for {name1} at chess on {day}.
=: the chess game on {day} was won by {name1}, not by {name2}.

~: job1 job2
=: the {job1} complained to the {job2} about the noise from the {place}.
=: the {job2} received a complaint from the {job1} about the noise from the {place}.
=: noise from the {place} made the {job1} complain to the {job2}.
=: it was the {job1} who told the {job2} that the {place} was too noisy.

~: name1 name2
=: {name1} found the keys that {name2} lost at {event}.
=: the keys that {name2} lost at {event} were found by {name1}.
=: {name2} lost some keys at {event}, and {name1} came across them.
=: thanks to {name1}, the keys lost by {name2} at {event} turned up.

~: place1 place2
=: {name} walked from the {place1} to the {place2} on {day}.
=: on {day}, {name} left the {place1} and went on foot to the {place2}.
=: {name} reached the {place2} on {day} after a walk that began at the {place1}.
=: the walk that {name} took on {day} started at the {place1} and ended at the {place2}.

~: num1 num2
=: {name} owns {num1} hens and {num2} ducks near the {place}.
=: near the {place}, {name} keeps {num2} ducks and {num1} hens.
=: there are {num2} ducks and {num1} hens at the farm of {name} near the {place}.
=: of the birds that {name} keeps near the {place}, {num1} are hens and {num2} ducks.

~: name1 name2
=: {name1} trusts {name2} with the key to the {place}.
=: {name2} is trusted by {name1} with the key to the {place}.
=: {name1} lets {name2} look after the key to the {place} without a worry.
=: the key to the {place} is in the care of {name2}, and {name1} has no worry about it.

~: day1 day2
=: {name} is free on {day1} but works at the {place} on {day2}.
=: on {day2} {name} works at the {place}, but on {day1} {name} is free.
=: the {place} needs {name} on {day2}, not on {day1}.
=: {day1} is a day off for {name}, whose shift at the {place} is on {day2}.

~: name1 name2
=: {name1} apologised to {name2} for what was said at {event}.
=: {name2} received an apology from {name1} for what was said at {event}.
=: for the words spoken at {event}, {name1} begged pardon of {name2}.
=: {name1} said sorry to {name2} for the words spoken at {event}.
"""
