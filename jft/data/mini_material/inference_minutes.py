"""Sentences from the minutes of councils and boards."""

TEXT = """
## slots
chair: the chair | the treasurer | the secretary | the planning officer | the legal adviser | the
  project manager
body: the board | the committee | the council | the working group | the panel | the assembly
plan: the new bridge | the sports hall | the tram extension | the water tower | the cycle path |
  the car park | the school annex | the data centre
firm: Halford and Sons | Tessel Works | Marlow Builders | Quarry Lane Ltd | Ostrava Design |
  Pinder Brothers
month: March | April | May | June | September | October | November
year: 2026 | 2027 | 2028 | 2029
low: 40,000 | 55,000 | 70,000 | 85,000
mid: 100,000 | 120,000 | 150,000
high: 210,000 | 260,000 | 340,000 | 480,000
yes: nine | ten | eleven | twelve
no: three | four | five | six
town: Larkfield | Easton | Overby | Millbrook | Castleford | Denholm

## frames
h: {plan} will cost less than {mid} crowns.
d: {plan} will cost at least {mid} crowns.
e: In its report to {body}, {firm} put the total cost of {plan} at {low} crowns, a sum that
  includes tax, and offered to hold this price for a year.
c: In its report to {body}, {firm} put the total cost of {plan} at {high} crowns, a sum that
  includes tax, and offered to hold this price for a year.
n: In its report to {body}, {firm} listed the costs that remain to be settled for {plan} and
  offered to present a total, tax included, within a year.

h: {body} approved {plan}.
d: {body} voted down {plan}.
e: Following a debate of two hours, {plan} was put to the vote and accepted by {body} with {yes}
  votes in favour and {no} against.
c: Following a debate of two hours, {plan} was put to the vote and rejected by {body} with {no}
  votes in favour and {yes} against.
n: Following a debate of two hours, {plan} was put to the vote; the {no} visitors had to leave
  before {body} counted the ballots and announced the result.

h: {firm} won the contract for {plan}.
d: {firm} did not win the contract for {plan}.
e: Of the {no} bidders for {plan}, {firm} made the best offer, and {chair} countersigned the
  resulting contract with that company in {month}.
c: Of the {no} bidders for {plan}, {firm} made the dearest offer, and the contract was awarded to
  a rival company in {month}.
n: Of the {no} bidders for {plan}, {firm} was the last to be heard, and {chair} signed the
  contract with one of the bidders in {month}.

h: work on {plan} will begin before {year}.
d: work on {plan} will not begin before {year}.
e: It was confirmed by {chair} that the site has been cleared and that work on {plan} starts at
  the latest in {month} of the year before {year}.
c: It was confirmed by {chair} that the site has been cleared and that work on {plan} starts at
  the earliest in {month} of the year after {year}.
n: It was confirmed by {chair} that the site has been cleared and that work on {plan} ends at the
  latest in {month} of the year after {year}.

h: {chair} attended the whole meeting.
d: {chair} missed part of the meeting.
e: Present from the opening to the close were {chair} and {no} members; others joined when {plan}
  was discussed or left thereafter.
c: Present from the opening were {no} members; {chair} joined only when {plan} was discussed and
  missed the first two items.
n: Present when {plan} was discussed were {chair} and {no} members; the list for the other items
  was lost.

h: {body} has enough money for {plan}.
d: {body} cannot afford {plan}.
e: The accounts show reserves of {high} crowns, which {body} is free to spend; {plan}, at {low}
  crowns in all, can be paid for from them.
c: The accounts show reserves of {low} crowns and no other means; {plan}, at {high} crowns in all,
  is therefore out of reach for {body}.
n: The accounts show reserves of {low} crowns, which {body} is free to spend; the cost of {plan}
  was not known to {chair}.

h: the delay to {plan} was caused by the weather.
d: the delay to {plan} had nothing to do with the weather.
e: Asked by {body} why {plan} was late, {firm} proved that frost and flooding alone had stopped
  the machines from {month} onwards.
c: Asked by {body} why {plan} was late, {firm} admitted that only an unpaid bill, and no frost or
  flood, had stopped the machines.
n: Asked by {body} why {plan} was late, {firm} promised a written answer in {month}, and {chair}
  noted that other sites had had frost.

h: most members supported {plan}.
d: fewer than half of the members supported {plan}.
e: Of the fifteen members of {body}, {yes} spoke and voted for {plan} in {month}; the others
  abstained or were absent from {town}.
c: Of the fifteen members of {body}, only {no} spoke and voted for {plan} in {month}; all the
  others opposed it on behalf of {town}.
n: Of the fifteen members of {body}, {no} spoke on {plan} in {month}; {chair} recorded their names
  but neither their views nor any vote.

h: residents were consulted about {plan}.
d: no resident was consulted about {plan}.
e: Before {plan} was drawn up, {chair} held two hearings in {town}, at which {yes} residents gave
  their opinion of it.
c: Before {plan} was drawn up, {chair} held two hearings in {town} on other matters; the residents
  were at no time asked about it.
n: Before {plan} was drawn up, {chair} held two hearings in {town}; who was asked to speak there
  is not on record.

h: the meeting took place in {town}.
d: the meeting was held outside {town}.
e: {body} met in the town hall of {town} to discuss {plan}, since its own rooms were being painted
  until {month}.
c: {body} met in its own rooms to discuss {plan}, since the town hall of {town}, an hour away, was
  being painted until {month}.
n: {body} met to discuss {plan}, and members were reminded that the town hall of {town} would be
  painted in {month}.

h: {firm} has worked for {body} before.
d: {firm} has never worked for {body}.
e: {chair} recalled that {firm}, which now applies for {plan}, built the old depot in {town} for
  {body} and was paid in full.
c: {chair} recalled that {firm}, which now applies for {plan}, had never been hired by {body},
  neither in {town} nor elsewhere.
n: {chair} recalled that {firm}, which now applies for {plan}, built the old depot in {town} and
  was paid in full by its owner.

h: {plan} is ahead of schedule.
d: {plan} is not ahead of schedule.
e: According to {chair}, {plan}, due in {month}, will already be handed over {no} weeks before
  that date, to the surprise of {body}.
c: According to {chair}, {plan}, due in {month}, will be handed over {no} weeks after that date,
  to the regret of {body}.
n: According to {chair}, {plan}, which is due in {month}, now employs {yes} people, {no} of whom
  come from {town}.

h: every member received the report in advance.
d: at least one member did not receive the report in advance.
e: {chair} confirmed that the report on {plan} had reached all {yes} members of {body} a week
  before the meeting in {month}.
c: {chair} confirmed that the report on {plan} had reached only {no} of the {yes} members of
  {body} before the meeting in {month}.
n: {chair} confirmed that the report on {plan} had been printed a week before the meeting of the
  {yes} members of {body} in {month}.

h: {plan} needs the consent of the ministry.
d: {plan} can go ahead without the ministry.
e: {chair} explained that {plan} may not proceed unless the ministry agrees, whatever {body}
  decides in {month}.
c: {chair} explained that {plan} may proceed even if the ministry does not agree, provided that
  {body} decides so in {month}.
n: {chair} explained that the ministry had been informed of {plan} and that {body} would decide in
  {month}.

h: the fee for residents will go up.
d: the fee for residents will not go up.
e: From {month} residents of {town} will pay a fee of 30 crowns instead of 20, since {body} needs
  the income for {plan}.
c: From {month} residents of {town} will pay a fee of 20 crowns instead of 30, although {body}
  needs the income for {plan}.
n: From {month} residents of {town} will pay their fee by bank transfer, and {body} will use the
  income for {plan}.

h: {firm} was criticised by {chair}.
d: {chair} had no criticism of {firm}.
e: {chair} found fault with {firm} in front of {body}, saying that the drawings of {plan} were
  careless and late.
c: {chair} had nothing but praise for {firm} in front of {body}, saying that the drawings of
  {plan} were careful and early.
n: {chair} met {firm} in {month} and showed {body} the drawings of {plan}, which a member called
  careless.

h: {plan} will be larger than the one in {town}.
d: {plan} will be no larger than its counterpart in {town}.
e: The drawings show that {plan} will be twice the size of its counterpart in {town}, {chair} told
  {body} in {month}.
c: The drawings show that {plan} will be half the size of its counterpart in {town}, {chair} told
  {body} in {month}.
n: The drawings show that {plan} will be dearer than its counterpart in {town}, {chair} told
  {body} in {month}.

h: the next meeting is in {month}.
d: the next meeting is not in {month}.
e: {body} will next meet in {month}, when {chair} will report on {plan} and on the visit to
  {town}.
c: {body} will not meet again until {month2}, so that {chair} cannot report on {plan} and on the
  visit to {town} in {month}.
n: {body} will visit {town} in {month} to look at {plan}, and the date of its next meeting will be
  set by {chair}.

h: the objection from {town} was upheld.
d: the objection from {town} was dismissed.
e: The objection that {town} had raised against {plan} was found valid by {body}, which ordered
  {firm} to change the drawings.
c: The objection that {town} had raised against {plan} was found groundless by {body}, which told
  {firm} to leave the drawings as they are.
n: The objection that {town} had raised against {plan} was read out to {body}, and {firm} brought
  the drawings to the meeting.

h: {chair} will leave office this year.
d: {chair} will stay in office this year.
e: {body} thanked {chair}, who steps down in {month} of this year, and chose a successor who will
  take charge of {plan}.
c: {body} thanked {chair}, who has agreed to serve for two more years, until {plan} has been
  completed.
n: {body} thanked {chair}, whose work on {plan} had been praised by {town}, with flowers and a
  speech in {month}.

h: the audit found errors.
d: the audit found no errors.
e: The audit of {plan} lists {yes} mistakes in the invoices of {firm}, which {chair} has asked the
  company to correct by {month}.
c: The audit of {plan} states that the invoices of {firm} are free of mistakes, and {chair} closed
  the matter in {month}.
n: The audit of {plan} covers {yes} invoices of {firm}; its findings will be presented to {chair}
  in {month}.

h: {plan} will be open to the public.
d: {plan} will be closed to the public.
e: Once completed, {plan} may be used by anybody free of charge, as {body} promised {town} in
  {month}.
c: Once completed, {plan} may be used by staff alone and by nobody from outside, as {body} told
  {town} in {month}.
n: Once completed, {plan} will carry the name of its founder, as {body} promised {town} in
  {month}.

h: {firm} employs more people than a year ago.
d: {firm} employs no more people than a year ago.
e: The workforce of {firm}, which builds {plan}, grew from 60 to 90 within the past year, {chair}
  informed {body}.
c: The workforce of {firm}, which builds {plan}, shrank from 90 to 60 within the past year,
  {chair} informed {body}.
n: The workforce of {firm}, which builds {plan}, moved to an office near {town} within the past
  year, {chair} informed {body}.

h: {body} reached its decision without debate.
d: {body} debated before it decided.
e: {plan} was passed by {body} at once, without a word from any member, and {chair} moved on to
  the {month} figures.
c: {plan} was passed by {body} after {no} hours of argument among the members, and {chair} put off
  the {month} figures.
n: {plan} was passed by {body} with {yes} votes, and {chair} then presented the {month} figures.

h: {chair} opposes {plan}.
d: {chair} does not oppose {plan}.
e: {chair} called {plan} a waste of money, asked {body} to bury it and voted against it in
  {month}.
c: {chair} called {plan} money well spent, asked {body} to support it and voted for it in {month}.
n: {chair} read out two letters about {plan}, one for and one against, and asked {body} to vote on
  it in {month}.
"""
