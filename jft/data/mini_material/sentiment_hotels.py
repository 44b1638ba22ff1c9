"""Long, formal letters about stays in hotels."""

TEXT = """
## slots
stay: two nights | three nights | a long weekend | five nights | a week | four nights | ten days
month: March | April | May | June | September | October | November | early January
who: My husband and I/my husband and I | My wife and I/my wife and I | Our family of four/our
  family of four | Three of us from the choir/three of us from the choir | My parents and I/my
  parents and I | Two colleagues and I/two colleagues and I
view: by the harbour | beside the old town wall | near the conference centre | above the lake | on
  the main square | opposite the railway station | close to the cathedral | behind the market hall

## frames
p: hotel
p: guest house
p: inn
f: our room was spotless / our room had not been dusted for weeks
f: the staff at reception remembered our names / the staff at reception ignored us for twenty
  minutes
f: breakfast was generous and freshly cooked / breakfast was meagre and barely warm
f: the beds were firm and comfortable / the beds sagged in the middle
f: the bar below fell silent at ten / the bar below kept us awake until three
f: the shower was hot and powerful / the shower was never more than lukewarm
f: a faulty lamp was replaced within minutes / a faulty lamp stayed faulty in spite of four
  requests
f: the lift was quick and modern / the lift was out of order throughout
f: the wireless network was fast on every floor / the wireless network failed every evening
f: dinner was worthy of a far grander house / dinner was cold, late and dear
f: check-in took two minutes / check-in took an hour and a quarter
f: the bill matched the quotation exactly / the bill contained two charges that nobody could
  explain
f: the towels were thick and changed daily / the towels were thin and changed only once
f: parking was free and easy / parking cost more than dinner
f: the view was as lovely as in the brochure / the view was of a brick wall and four dustbins
f: the porter could not have been more obliging / the porter could not have been less obliging
f: the windows kept out all the traffic noise / the windows kept out neither noise nor draught
f: the pool was clean and pleasantly warm / the pool was closed without notice
f: our late arrival was handled with grace / our late arrival was met with a scolding

v: we have already reserved the same room for next year / we have already reserved elsewhere for
  next year
v: we were truly sorry to leave / we were truly glad to leave
v: we should not hesitate to return / we should hesitate to return even as guests of the owner
v: I can recommend the house without reservation / I cannot recommend the house at any price
v: the unkind notices that one reads are undeserved / the kind notices that one reads are
  undeserved
v: I have seldom been better looked after / I have seldom been worse looked after
v: it was money well spent / it was money poorly spent
v: our only complaint is that we could not stay longer / our only comfort is that we did not stay
  longer
v: nothing would keep us from coming back / nothing would persuade us to come back
v: we have warm praise for the management / we have sharp criticism for the management
v: our expectations, which were high, were exceeded / our expectations, which were low, were not
  met
v: the house fully deserves its four stars / the house does not deserve half of its four stars
v: we were sorry to go / we were sorry to have come
v: no guest could reasonably ask for more / no guest could reasonably accept less

s: {who} spent {stay} at this {p} {view} in {month}. It is true that {o}; on the other hand, {f},
  and, taken as a whole, {v}.
s: We stayed at this {p} {view} for {stay} in {month}. {f}. Although {o}, that did not alter our
  opinion: {v}.
s: Having read mixed reports, {who.1} chose this {p} {view} for {stay} in {month}. {f}; moreover,
  {f2}. In short, {v}.
s: This {p} stands {view}. In fairness it should be said that {o}. That, however, weighs little
  with us, since {f}. To conclude, {v}.
s: {who} arrived at the {p} in {month} for {stay}. {o}, and we drew our conclusions too early, for
  {f}, and {v}.
s: I write about {stay} in {month} at the {p} {view}. {f}. I would add that {o}, but the sum of it
  is that {v}.
s: Friends had warned us about [the rooms|the service|the prices] at this {p} {view}, and others
  had defended it. After {stay} in {month} we can settle the matter: {f}, and {v}.
s: Although {o}, the remainder of {stay} at this {p} {view} told a different story. {f}, and {f2}.
  {v}.
s: To whom it may concern: {who} were guests of this {p} {view} for {stay}. {f}. It is only fair
  to add that {o}; nevertheless, {v}.
s: Whether one should choose the {p} {view} is often debated here. After {stay} in {month},
  {who.1} have an answer: {v}. {f}, and {f2}.
s: {v}. I say so although {o}, for in the course of {stay} at the {p} {view} it turned out that
  {f} and that {f2}.
s: May I add a word on the {p} {view}, where {who.1} spent {stay} in {month}? {f}, {f2}, and {v}.
s: We were prepared for anything in {month}. At this {p} {view}, where we spent {stay}, {o}, but
  {f}, {f2}, and {v}.
"""
