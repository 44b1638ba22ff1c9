"""Long sentences of official bulletins and business news."""

TEXT = """
## slots
firm: Northgate Steel | Halden Paper | Orbis Telecom | Meridian Foods | Castell Energy | Arden
  Shipping | Lumen Glass | Tarn Insurance | Kestrel Airways | Boreal Timber
land: Norway | Portugal | Canada | Japan | Kenya | Chile | Poland | Vietnam | Morocco | Austria
pct: 3 | 4 | 6 | 7 | 9 | 12 | 14 | 18
year: 2009 | 2011 | 2012 | 2014 | 2015 | 2017 | 2018 | 2020
body: the finance ministry | the central bank | the competition authority | the labour union | the
  audit office | the regional parliament | the supreme court | the health agency
good: copper | wheat | coffee | timber | natural gas | machinery | fertiliser | cotton
city: Hamburg | Toronto | Nairobi | Osaka | Seville | Gdansk | Bergen | Valencia
quarter: first | second | third | fourth
lake: Lake Arven | Lake Solna | Lake Tiber | Lake Moru | Lake Hask | Lake Ondal
team: the marine institute | the weather service | the geological survey | the forestry board |
  the polar station | the river authority

## frames
~: firm1 firm2
=: {firm1} announced in {year} that it had acquired {firm2} for an undisclosed sum, ending months
  of negotiation.
=: after months of talks, it was made public in {year} that {firm2} had been taken over by {firm1}
  at a price not revealed.
=: in {year} {firm2} became the property of {firm1}; the price was kept secret, and the talks had
  lasted for months.

~: land1 land2
=: exports of {good} from {land1} to {land2} rose by {pct} per cent in {year}, official statistics
  show.
=: official statistics show that in {year} {land2} imported {pct} per cent more {good} from
  {land1} than a year earlier.
=: in {year} the amount of {good} that {land1} sold to {land2} grew by {pct} per cent, according
  to official figures.

~: body1 body2
=: {body1} rejected a request by {body2} to publish the complete minutes of the {quarter} hearing.
=: a request from {body2} that the full minutes of the {quarter} hearing be released was turned
  down by {body1}.
=: {body2} asked for publication of the minutes of the {quarter} hearing in full, but {body1}
  refused.

~: pct1 pct2
=: unemployment in {city} went from {pct1} per cent to {pct2} per cent within a year, whatever
  some papers claim.
=: whatever some papers claim, the jobless rate in {city} moved within a year from {pct1} to
  {pct2} per cent.
=: within twelve months the share of people out of work in {city} went to {pct2} per cent from
  {pct1}, despite other reports.

~: year1 year2
=: the treaty with {land1} was signed in {year1} and the one with {land2} in {year2}, both after
  approval by {body}.
=: having been approved by {body}, the treaties were signed: with {land2} in {year2} and with
  {land1} in {year1}.
=: {body} approved two treaties, of which the one concluded in {year2} was with {land2} and the
  one concluded in {year1} with {land1}.

~: firm1 firm2
=: a court in {city} ordered {firm1} to pay damages to {firm2} for breach of a supply contract for
  {good}.
=: {firm2} is to receive damages from {firm1} over a broken {good} supply contract, a court in
  {city} ruled.
=: for failing to honour a contract on the supply of {good}, {firm1} must compensate {firm2},
  according to a court in {city}.

~: team1 team2
=: {team1} shared its measurements from {lake} with {team2} before publishing them in {year}.
=: before the {lake} measurements were published in {year}, {team2} had been given them by
  {team1}.
=: {team2} received the data on {lake} from {team1} ahead of their publication in {year}.

~: city1 city2
=: the company will transfer its headquarters from {city1} to {city2} by the end of the {quarter}
  quarter of {year}.
=: by the close of the {quarter} quarter of {year}, {city2} will have replaced {city1} as the seat
  of the company.
=: the head office, now in {city1}, is to be in {city2} before the {quarter} quarter of {year} is
  over.

~: land1 land2
=: inflation was higher in {land1} than in {land2} throughout {year}, a survey by {body} found.
=: a survey by {body} found that throughout {year} prices rose more slowly in {land2} than in
  {land1}.
=: according to {body}, {land2} had lower inflation than {land1} all through {year}.

~: lake1 lake2
=: water is pumped from {lake1} into {lake2} whenever the level falls by {pct} per cent, engineers
  explained.
=: engineers explained that {lake2} is fed by pumps with water from {lake1} as soon as the level
  drops by {pct} per cent.
=: a drop in level of {pct} per cent starts the pumps, which then move water to {lake2} out of
  {lake1}, according to engineers.

~: body1 body2
=: {body1} warned {body2} in {year} that the rules on {good} were being ignored.
=: in {year}, {body2} was cautioned by {body1} about the neglect of the rules on {good}.
=: that nobody was obeying the rules on {good} was the warning which {body2} had from {body1} in
  {year}.

~: firm1 firm2
=: {firm1} overtook {firm2} in {year} as the largest employer in {city}, with {pct} per cent of
  all jobs.
=: with {pct} per cent of all jobs, {firm1} became in {year} the biggest employer in {city}, a
  place held until then by {firm2}.
=: in {year}, {firm2} lost its rank as the leading employer of {city} to {firm1}, which provided
  {pct} per cent of jobs.

~: good1 good2
=: the price of {good1} climbed in {year} while that of {good2} fell, traders in {city} reported.
=: traders in {city} reported for {year} a decline in the price of {good2} and an increase in that
  of {good1}.
=: according to {city} traders, {good2} became cheaper in {year}, whereas {good1} grew dearer.

~: land1 land2
=: {land1} withdrew its ambassador from {land2} in {year} in protest against the tariff on {good}.
=: in protest at the {good} tariff, the ambassador of {land1} in {land2} was called home in
  {year}.
=: the duty on {good} led {land1} in {year} to recall the ambassador whom it had sent to {land2}.

=: not every member of {body} supported the {year} budget, although the chair had asked for
  unanimity.
=: although the chair had called for a united vote, some members of {body} did not back the budget
  of {year}.
=: the {year} budget lacked the support of some in {body}, despite the wish of the chair for
  unanimity.
!: not one member of {body} supported the {year} budget, although the chair had asked for
  unanimity.
!: although the chair had called for a united vote, all members of {body} declined to back the
  budget of {year}.
!: the {year} budget lacked the support of anyone in {body}, despite the wish of the chair for
  unanimity.

=: {firm} is expected to deny that it sold {good} below cost in {land}.
=: a denial by {firm} that it sold {good} in {land} below cost is expected.
=: observers think {firm} will say that it did not undercut its own costs on {good} in {land}.
!: {firm} was never expected to sell {good} below cost in {land}.
!: nobody expected {firm} to sell {good} in {land} below cost.
!: observers did not think that {firm} would undercut its own costs on {good} in {land}.

=: unless {body} objects, the plant in {city} will resume production of {good} in {year}.
=: the {city} plant will start making {good} again in {year} if no objection comes from {body}.
=: only an objection by {body} can keep the factory in {city} from returning to {good} production
  in {year}.
x: unless {body} agrees, the plant in {city} will not resume production of {good} in {year}.
x: the {city} plant will stop making {good} in {year} if no objection comes from {body}.
x: only an objection by {body} can make the factory in {city} return to {good} production in
  {year}.

=: the {quarter} report blames the loss at {firm} on the strike, not on the flood in {city}.
=: according to the {quarter} report, the strike and not the {city} flood caused the loss at
  {firm}.
=: it was the strike rather than the flood in {city} that cost {firm} money, the {quarter} report
  says.
!: the {quarter} report blames the loss at {firm} on the flood in {city}, not on the strike.
!: according to the {quarter} report, the {city} flood and not the strike caused the loss at
  {firm}.
!: it was the flood in {city} rather than the strike that cost {firm} money, the {quarter} report
  says.

=: at least {pct} per cent of the {good} shipped to {land} in {year} was found to be spoiled.
=: in {year}, inspectors found {pct} per cent or more of the {good} sent to {land} to be spoiled.
=: of the {good} that went to {land} in {year}, no less than {pct} per cent was in a spoiled
  state.
!: at most {pct} per cent of the {good} shipped to {land} in {year} was found to be spoiled.
!: in {year}, inspectors found {pct} per cent or less of the {good} sent to {land} to be spoiled.
!: of the {good} that went to {land} in {year}, no more than {pct} per cent was in a spoiled
  state.

=: {team} began its study of {lake} before the dam at {city} was approved in {year}.
=: when the {city} dam was approved in {year}, {team} had already started to study {lake}.
=: approval of the dam at {city} in {year} came after {team} had taken up its study of {lake}.
!: {team} began its study of {lake} after the dam at {city} was approved in {year}.
!: when the {city} dam was approved in {year}, {team} had not yet started to study {lake}.
!: approval of the dam at {city} in {year} came before {team} had taken up its study of {lake}.

=: {firm} lowered its forecast for {year}, but sales of {good} in {land} were better than planned.
=: although sales of {good} in {land} exceeded the plan, {firm} cut its {year} forecast.
=: {firm} now expects less of {year}, in spite of {good} sales in {land} that beat its plan.
!: {firm} did not lower its forecast for {year}, but sales of {good} in {land} were worse than
  planned.
!: although sales of {good} in {land} missed the plan, {firm} kept its {year} forecast.
!: {firm} still expects as much of {year}, in spite of {good} sales in {land} that missed its
  plan.

~: pct1 pct2
=: in {year}, {pct1} per cent of households in {city} used gas and {pct2} per cent used oil,
  {team} noted.
=: {team} noted that in {year} oil was used by {pct2} per cent of homes in {city} and gas by
  {pct1} per cent.
=: of all households in {city}, the share with oil was {pct2} per cent in {year}, against {pct1}
  per cent with gas, according to {team}.

~: body1 body2
=: the members of {body1} are appointed by {body2} for a term that begins in the {quarter}
  quarter.
=: {body2} names the members of {body1}, whose term starts in the {quarter} quarter.
=: those who sit in {body1} owe their seats, from the {quarter} quarter on, to {body2}.

~: quarter1 quarter2
=: profits at {firm} rose in the {quarter1} quarter of {year} and fell in the {quarter2} quarter,
  chiefly because of {good}.
=: chiefly because of {good}, {firm} saw profits go down in the {quarter2} quarter of {year} and
  up in the {quarter1}.
=: it was mainly {good} that brought {firm} higher earnings in the {quarter1} quarter of {year}
  and lower ones in the {quarter2}.

~: land1 land2
=: engineers trained in {land1} are now employed in {land2} by {firm}, mostly on {good} projects.
=: {firm} employs in {land2}, mainly for {good} projects, engineers who were trained in {land1}.
=: the engineers whom {firm} has working in {land2}, chiefly on {good}, received their training in
  {land1}.

~: city1 city2
=: flights from {city1} to {city2} were suspended for {pct} days in {year}, {firm} confirmed.
=: {firm} confirmed that for {pct} days in {year} nobody could fly to {city2} from {city1}.
=: in {year} there was no air service from {city1} to {city2} for {pct} days, according to {firm}.
"""
