"""One-line verdicts on films, as critics are quoted on posters."""

TEXT = """
## slots
film: thriller | western | musical | comedy | war film | courtroom drama | ghost story | road
  movie | heist film | love story | space epic | cartoon | spy film | sequel | remake | family
  film
star: the lead | the heroine | the villain | the director | the writer | the young star | the
  narrator | the composer
part: act | half | hour | reel
time: two hours | ninety minutes | three hours | a hundred minutes

## frames
r: {time} flew by without one dull minute / {time} dragged by without one bright minute
r: {a film} with nothing wasted / {a film} with nothing but waste
r: this {film} earns every tear / this {film} begs for every tear
r: {star} saves what could have been a bore / {star} ruins what could have been a joy
r: not the dull {film} that the trailer threatens / not the gripping {film} that the trailer
  promises
r: I wanted to leave early? Never / I wanted to stay? Never
r: {a film} that respects its audience / {a film} that insults its audience
r: rarely has {a film} felt this alive / rarely has {a film} felt this lifeless
r: the jokes land, even the bad ones / the jokes sink, even the good ones
r: {star} is miscast, and it hardly matters: I was spellbound / {star} is brilliant, and it hardly
  matters: I was bored
r: weak start, wonderful [finish|finale|last {part}] / wonderful start, weak [finish|finale|last
  {part}]
r: all heart, and for once that is enough / all style, and for once that is not enough
r: you will laugh, and you will mean it / you will laugh, but never when you should
r: go and see it before somebody spoils it / wait for television, then watch something else
r: {a film} so good that I forgot my popcorn / {a film} so bad that my popcorn had the better plot
r: cheap sets, priceless [script|acting|dialogue] / priceless sets, cheap [script|acting|dialogue]
r: the critics are wrong to sneer at this {film} / the critics are wrong to cheer this {film}
r: who knew {a film} could still surprise us? / who knew {a film} could be this predictable?
r: silly, loud and impossible to dislike / clever, quiet and impossible to like
r: {star} never puts a foot wrong / {star} never puts a foot right
r: I came for {star} and stayed for everything else / I came for {star} and left before the end
r: less {a film} than a small miracle / less {a film} than a long advertisement
r: the best {film} that nobody is talking about / the worst {film} that everybody is talking about
r: not one scene that I would cut / not one scene that I would keep
r: it should not work, yet it does, beautifully / it should work, yet it does not, painfully
r: a slow {part} that pays off handsomely / a handsome {part} that never pays off
r: {star} makes {time} feel like ten minutes / {star} makes ten minutes feel like {time}
r: sad, strange and worth every penny / bright, busy and not worth a penny
r: the plot is nonsense, and I loved every second / the plot makes sense, and I hated every second
r: even my grumpy father asked for a sequel / even my cheerful father asked for a refund
r: expected a disaster, got a delight / expected a delight, got a disaster
r: this {film} lingers for days, in the best way / this {film} lingers for days, like a headache
r: if only every {film} were like this one / if only this {film} were like any other one
r: no clichés, no padding, no complaints / no ideas, no rhythm, no point
r: {star} turns a tired story into gold / {star} turns a golden story into a chore
r: do not let the awful poster scare you off: superb / do not let the superb poster fool you:
  awful
r: I have no idea how they made {a film} this [fresh|moving|funny] / I have no idea why they made
  {a film} this [stale|hollow|sour]
r: clumsy in places, thrilling as a whole / thrilling in places, clumsy as a whole
r: see it twice: it only gets better / see it once and you have suffered enough
r: the ending alone is worth the ticket / the ending alone deserves a refund
"""
